"""A command's status is what the command says, however its process ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from unmask.cli import watched as module
from unmask.cli.watched import watched
from unmask.errors import first_line, said

from .networks import AUDIT, write

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only there is a command watched"
)


def start(does: str, **more) -> subprocess.Popen[str]:
    """A process whose command does that; `path` is a file that it may write."""
    text = """\
    import atexit, ctypes, os, signal, sys, time
    from unmask.cli.watched import watched
    def run():
        {}
    sys.exit(watched(run))
    """
    code = textwrap.dedent(text).format(textwrap.dedent(does).strip().replace("\n", "\n    "))
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, **more)


def end(does: str, **more) -> tuple[int, str]:
    with start(does, **more) as process:
        _, err = process.communicate(timeout=60)
    return process.returncode, err


@pytest.mark.parametrize("status", [0, 1, 2, 3, 70, 130])
def test_what_is_said_is_the_status_and_nothing_is_added(status):
    assert end(f"return {status}") == (status, "")


LEAVES = {
    "another program": ("os.execv('/bin/true', ['true'])", "status 0"),
    "another program that fails": ("os.execv('/bin/false', ['false'])", "status 1"),
    "exit of the C library": ("ctypes.CDLL(None).exit(0)", "status 0"),
    "at once": ("ctypes.CDLL(None)._exit(1)", "status 1"),
    "os._exit": ("os._exit(3)", "status 3"),
    "abort": ("os.abort()", "SIGABRT"),
    "no such address": ("import faulthandler; faulthandler.disable(); ctypes.string_at(0)", "SIGSEGV"),
    "an alarm": ("signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(60)", "SIGALRM"),
}


@pytest.mark.parametrize(("does", "how"), LEAVES.values(), ids=LEAVES)
def test_whatever_else_ends_it_is_a_failure_in_one_line(does, how):
    status, err = end(does)
    assert status == 2
    assert err.startswith("unmask: the process ended ")
    assert how in err
    assert err.count("\n") == 1


def test_what_happens_after_it_was_said_changes_nothing():
    assert end("atexit.register(os._exit, 1); return 0") == (0, "")
    assert end("atexit.register(ctypes.CDLL(None)._exit, 0); return 1") == (1, "")


def test_a_process_that_it_started_and_that_stays_is_not_waited_for():
    began = time.monotonic()
    status, _ = end("if os.fork() == 0: os.close(2); time.sleep(30)\nos._exit(0)")
    assert status == 2
    assert time.monotonic() - began < 20


TOLD = """
def heard(number, frame):
    raise SystemExit
signal.signal(signal.SIG{0}, heard)
try:  # around what says that it is there, too: the signal may come before the next line
    open({1!r}, "w").close()
    time.sleep(60)
except SystemExit:
    return 5
"""


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1"])
def test_a_signal_to_the_command_is_heard_where_it_runs(tmp_path, name):
    there = tmp_path / "there"
    with start(TOLD.format(name, str(there))) as process:
        wait_for(there)
        process.send_signal(getattr(signal, f"SIG{name}"))
        assert process.wait(60) == 5


@pytest.mark.parametrize(("name", "status"), [("TERM", 143), ("HUP", 129), ("KILL", 137)])
def test_a_signal_that_nobody_hears_has_the_status_of_shells(name, status):
    assert end(f"os.kill(os.getpid(), signal.SIG{name}); time.sleep(60)")[0] == status


def test_who_is_killed_takes_the_command_along(tmp_path):
    there = tmp_path / "there"
    with start(f"open({str(there)!r}, 'w').write(str(os.getpid())); time.sleep(60)") as process:
        wait_for(there)
        time.sleep(0.1)
        running = int(there.read_text())
        process.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{running}").exists() and "Z" not in Path(f"/proc/{running}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_elsewhere_it_runs_in_this_process(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    assert watched(os.getpid) == os.getpid()


# in earnest

GONE = {
    "another program": "os.execv('/bin/true', ['true'])",
    "the C library": "__import__('ctypes').CDLL(None).exit(0)",
    "a crash": "os.abort()",
}


@pytest.mark.parametrize("text", GONE.values(), ids=GONE)
@pytest.mark.parametrize("command", ["audit", "bound"])
def test_a_network_that_ends_the_process_has_no_verdict(tmp_path, begun, command, text):
    write(tmp_path, f"class Gone(Means):\n    def forward(self, x): {text}\ndef gone(): return Gone().eval()")
    words = AUDIT if command == "audit" else ["--norm", "linf", "--epsilon", "0.1", "--quiet"]
    ran = begun(command, "own.py:gone", *words, cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("unmask: the process ended ")


# words of other people's exceptions


class Silent(Exception):
    def __str__(self):
        raise SystemExit(0)


class Wordless(BaseException):
    def __str__(self):
        return 3  # type: ignore[return-value]


@pytest.mark.parametrize("error", [Silent(), Wordless(), ValueError(), ValueError("\n")])
def test_an_exception_that_says_nothing_has_its_type(error):
    assert first_line(error) == type(error).__name__ or not said(error).strip()


def test_what_an_exception_says_can_be_printed_and_ends():
    assert first_line(ValueError("a\ud800b\nc")) == "a\\ud800b"
    assert len(first_line(ValueError("x" * 10**6))) < 3000
