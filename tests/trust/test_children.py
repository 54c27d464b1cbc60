"""A process that an attack leaves behind could change files and memory that is shared: it is named and ended."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory

import pytest
import torch
from torch.utils.data import DataLoader

from unmask.attacks.foreign import as_attack
from unmask.audit.runtime.children import Children
from unmask.errors import AttackFailed
from unmask.foreign import signals_heard, wants_to_stop

from .networks import AUDIT, write
from .own_attack import Own, run

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are seen on Linux alone"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
KEPT = []


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("unmask.audit.runtime.children.PATIENCE", 0.2)
    yield
    for one in KEPT:
        one.shutdown() if isinstance(one, ProcessPoolExecutor) else one.terminate()
    for one in multiprocessing.active_children():
        one.kill()
    for one in KEPT:
        if isinstance(one, subprocess.Popen):
            one.wait()
    KEPT.clear()


def waits():
    while True:
        time.sleep(0.05)


def by_a_command():
    KEPT.append(subprocess.Popen(["sleep", "47"]))
    return "`sleep 47`"


def in_a_session_of_its_own():
    KEPT.append(subprocess.Popen(["sleep", "46"], start_new_session=True))
    return "`sleep 46`"


def by_a_shell():
    os.system("sleep 45 &")
    return "`sleep 45`"


def split_off():
    if os.fork() == 0:
        waits()
    return "that was split off"


def as_a_daemon():
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            waits()
        os._exit(0)
    os.waitpid(child, 0)
    return "that was split off"


def by_multiprocessing():
    multiprocessing.get_context("fork").Process(target=waits, daemon=True, name="spoiler").start()
    return "`spoiler`"


def by_a_pool():
    KEPT.append(multiprocessing.get_context("fork").Pool(1))
    return "PoolWorker-"


def by_an_executor():
    KEPT.append(ProcessPoolExecutor(1, multiprocessing.get_context("fork")))
    KEPT[-1].submit(abs, 1).result()
    return "Process-"


WAYS = [
    by_a_command,
    in_a_session_of_its_own,
    by_a_shell,
    split_off,
    as_a_daemon,
    by_multiprocessing,
    by_a_pool,
    by_an_executor,
]


@pytest.mark.parametrize("does", WAYS)
def test_what_goes_on_is_named_and_ended(does):
    attack, before = Own(lambda network: does()), Children()
    with pytest.raises(AttackFailed, match=r"left the process .* running, which could change") as raised:
        run(attack)
    assert attack.said in str(raised.value)
    assert "\n" not in str(raised.value)
    if does not in (by_a_pool, by_multiprocessing):  # which Python ends with this process
        assert before.left(0.0) is None


def test_a_plain_function_is_asked_the_same():
    def spoils(network, x, y):
        by_a_command()
        return x

    with pytest.raises(AttackFailed, match="`sleep 47`"):
        run(as_attack(spoils, "spoils"))


def test_who_raises_leaves_none_either():
    before = Children()

    def does():
        in_a_session_of_its_own()
        raise ValueError("mine")

    with pytest.raises(AttackFailed, match="ValueError: mine"):
        run(Own(lambda network: does()))
    assert before.left(0.0) is None


class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, n):
        return torch.full((2,), float(n))


def loads():
    assert torch.cat(list(DataLoader(Rows(), 2, num_workers=1))).sum() == 12


def waits_for_it():
    subprocess.run(["sleep", "0.05"], check=True)


def pools():
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        assert pool.submit(abs, -1).result() == 1


def ends_soon():
    KEPT.append(subprocess.Popen(["sleep", "0.05"]))


def counts_shared_memory():
    """The first one starts the process that removes what is forgotten, which stays."""
    block = shared_memory.SharedMemory(create=True, size=8)
    block.close()
    block.unlink()


@pytest.mark.parametrize("does", [loads, waits_for_it, pools, ends_soon, counts_shared_memory])
def test_what_ends_or_serves_all_is_let_be(does):
    assert set(run(Own(lambda network: does()))) <= {"torch's random state"}


def test_what_ran_before_is_not_the_attacks_nor_is_what_that_starts():
    starts = "import subprocess; input(); one = subprocess.Popen(['sleep', '44']); print(one.pid, flush=True)"
    starts += "; one.wait()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", starts], **pipes) as server:
        below = []

        def does():
            print(file=server.stdin, flush=True)
            below.append(int(server.stdout.readline()))

        try:
            assert run(Own(lambda network: does())) == []
            assert server.poll() is None
        finally:
            os.kill(below[0], signal.SIGTERM)  # fails where it has ended


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_was_split_off_and_is_not_taken_for_the_audits(number):
    """The pool of an attack ends its workers so, which unwound the audit that they were copies of, and hung."""
    with signals_heard():
        there, here = os.pipe()
        if (child := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                os.write(
                    here, b"1"
                )  # from here on: Python forgets a signal that comes before its fork is done
                waits()
            os._exit(wants_to_stop() or 42)
        os.read(there, 1)
        os.close(there)
        os.close(here)
        os.kill(child, number)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended == (-signal.SIGTERM if number == signal.SIGTERM else 42)
        assert not wants_to_stop()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Pool(2)", "ProcessPoolExecutor(2)"])
def test_an_audit_ends_in_one_line_and_so_does_the_pool(tmp_path, how):
    text = (
        "from concurrent.futures import ProcessPoolExecutor\nfrom multiprocessing import Pool\n\nKEPT = []\n\n\n"
        f"def spoils(network, x, y):\n    KEPT.append({how})\n"
        "    KEPT[0].map(abs, [1, 2])\n    return x\n"
    )
    write(tmp_path, text)
    command = [sys.executable, "-m", "unmask", "audit", "own.py:sound", *AUDIT, "--attack", "own.py:spoils"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "left the process" in ended.stderr
    assert "Traceback" not in ended.stderr
