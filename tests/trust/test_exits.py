"""Exit 0 and 1 belong to verdicts: no network, attack or callable decides the status by leaving."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from unmask import foreign
from unmask.cli import main as command_line
from unmask.cli.main import main
from unmask.errors import Interrupted, ModelFailed

from .networks import AUDIT, write

LATE = """
class Leaves(Means):
    "Leaves at a later call, when the audit is on its way."

    def __init__(self, error):
        super().__init__()
        self.error, self.calls = error, 0

    def forward(self, x):
        self.calls += 1
        if self.calls > {after}:
            raise self.error
        return super().forward(x)


class Stops(BaseException):
    "What no `except Exception` catches."


def zero(): return Leaves(SystemExit(0)).eval()
def one(): return Leaves(SystemExit(1)).eval()
def word(): return Leaves(SystemExit("bye")).eval()
def generator(): return Leaves(GeneratorExit()).eval()
def keyboard(): return Leaves(KeyboardInterrupt()).eval()
def cancelled(): return Leaves(asyncio.CancelledError()).eval()
def own(): return Leaves(Stops("enough")).eval()


class Backward(Means):
    "Leaves in a backward hook."

    def __init__(self, error):
        super().__init__()
        self.error = error
        self.flat.register_full_backward_hook(self.leave)

    def leave(self, *_):
        raise self.error


def hook_exits(): return Backward(SystemExit(0)).eval()
def hook_interrupts(): return Backward(KeyboardInterrupt()).eval()
def while_built(): sys.exit(0)
def built_generator(): raise GeneratorExit
def built_interrupt(): raise KeyboardInterrupt
"""
NAMES = ["zero", "one", "word", "generator", "keyboard", "cancelled", "own"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("own", None)


def one_line(capsys, *argv) -> str:
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("unmask: ")
    return err.splitlines()[-1]


@pytest.mark.parametrize("name", [*NAMES, "while_built", "built_generator", "built_interrupt"])
def test_audit(folder, capsys, name):
    write(folder, LATE.format(after=20))
    line = one_line(capsys, "audit", f"own.py:{name}", *AUDIT)
    assert "own.py:" in line


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished audit of a sound network."""
    folder = tmp_path_factory.mktemp("done")
    write(folder, LATE.format(after=0), "sound.py")
    assert main(["audit", f"{folder}/sound.py:sound", *AUDIT, "--out", str(folder / "audit")]) == 0
    return folder / "audit"


@pytest.mark.parametrize("name", ["zero", "generator", "keyboard", "while_built"])
def test_bound_and_verify(folder, done, capsys, name):
    write(folder, LATE.format(after=0))
    assert "own.py:" in one_line(
        capsys, "bound", f"own.py:{name}", "--norm", "linf", "--epsilon", "0.1", "--examples", "1"
    )
    assert "own.py:" in one_line(capsys, "verify", str(done), "--target", f"own.py:{name}")


@pytest.mark.parametrize("text", ["sys.exit(0)", "raise GeneratorExit", "raise KeyboardInterrupt", "exit(1)"])
def test_while_imported(folder, capsys, text):
    write(folder, f"\nif True:\n    {text}\n")
    assert "own.py:" in one_line(capsys, "audit", "own.py:sound", *AUDIT)


@pytest.mark.parametrize("name", ["hook_exits", "hook_interrupts"])
def test_a_backward_hook_that_leaves_ends_in_no_verdict_of_its_own(folder, capsys, name):
    """The forward pass is sound: what needs no gradient goes on, and nothing reaches the status but the verdict."""
    write(folder, LATE.format(after=0))
    status = main(["audit", f"own.py:{name}", *AUDIT, "--claim", "0.99"])
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert status in (1, 2)  # 0.99 is not met by a linear classifier, whatever its hooks do


@pytest.mark.parametrize("error", [SystemExit(0), GeneratorExit(), KeyboardInterrupt(), RuntimeError("no")])
def test_in_training(folder, capsys, monkeypatch, error):
    from unmask.training.standard import Standard

    def learn(self, run, x, y):
        raise error

    monkeypatch.setattr(Standard, "learn", learn)
    line = one_line(
        capsys, "train", "standard", "--epochs", "1", "--examples", "200", "--arch", "mlp", "--out", "made"
    )
    assert "test_exits.py:" in line


# the user's own wish to stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_real_signal_interrupts(monkeypatch, capsys, number):
    def run(arguments):
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was not heard")

    monkeypatch.setattr(command_line.demo, "run", run)
    before = signal.getsignal(number)
    assert main(["demo"]) == 130
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err == "unmask: stopped\n"


def test_a_signal_that_a_network_swallows_still_interrupts(monkeypatch, capsys):
    def run(arguments):
        with contextlib.suppress(BaseException):  # as a bare `except:` in somebody's forward pass does
            os.kill(os.getpid(), signal.SIGINT)
        foreign.stop_if_told()
        return 0

    monkeypatch.setattr(command_line.demo, "run", run)
    assert main(["demo"]) == 130


def test_without_our_handler_a_keyboard_interrupt_is_the_users():
    from unmask.classifier import Classifier

    def network(x):
        raise KeyboardInterrupt

    def leaves(x):
        raise SystemExit(0)

    x, generator = torch.zeros(1, 1, 2, 2), torch.Generator()
    with pytest.raises(KeyboardInterrupt):
        Classifier(network)(x, generator=generator)
    with (
        foreign.signals_heard(),
        pytest.raises(ModelFailed, match=r"KeyboardInterrupt \(.*test_exits.py:\d+\)"),
    ):
        Classifier(network)(x, generator=generator)
    with foreign.signals_heard(), pytest.raises(Interrupted):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(ModelFailed, match="SystemExit: 0"):
        Classifier(leaves)(x, generator=generator)


def test_outside_the_main_thread_nothing_is_changed():
    seen = []

    def work():
        with foreign.signals_heard():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


# whose failure is it


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError(28, "No space left on device", "/a/journal"), 2, "/a/journal: No space left on device"),
        (PermissionError(13, "Permission denied"), 2, "Permission denied"),
        (MemoryError(), 2, "out of memory"),
        (torch.OutOfMemoryError("no more"), 2, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory"),
        (SystemExit(0), 2, "SystemExit: 0"),
    ],
)
def test_what_is_no_defect_of_ours(monkeypatch, capsys, error, status, said):
    def run(arguments):
        raise error

    monkeypatch.setattr(command_line.demo, "run", run)
    monkeypatch.setattr(command_line, "user_line", lambda error: "")  # this test stands outside the package
    assert main(["demo"]) == status
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_a_defect_of_ours_is_shown_whole(monkeypatch, capsys):
    def run(arguments):
        raise error

    error = ZeroDivisionError("division by zero")
    monkeypatch.setattr(command_line.demo, "run", run)
    monkeypatch.setattr(command_line, "user_line", lambda error: "")  # this test stands outside the package
    assert main(["demo"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "defect of unmask" in err


# readers that leave


@pytest.mark.parametrize("more", [["--json"], []])
def test_a_reader_that_leaves_keeps_the_status(tmp_path, more):
    claim = tmp_path / "claim.toml"
    claim.write_text('target = "a.py:b"\nnorm = "linf"\nepsilon = 0.1\n')
    read, write_end = os.pipe()
    os.close(read)
    run = subprocess.run(
        [sys.executable, "-m", "unmask", "claim", "check", str(claim), *more],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write_end)
    assert run.returncode == 1  # something is left open
    assert run.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["audit", "a.py:b", "--norm", "linf", "--epsilon=--"],
        ["train", "standard", "--out", "made", "--epsilon=--"],
        ["bound", "a.py:b", "--data=--"],
        ["claim", "new", "--out=--"],
    ],
)
def test_two_dashes_are_no_value(capsys, words):
    assert "no value" in one_line(capsys, *words)


@pytest.mark.parametrize("target", ["os:getcwd", "own.py:number", "own.py:empty"])
def test_verify_against_something_that_is_no_network(folder, done, capsys, target):
    write(folder, "\ndef number(): return 3\ndef empty(): return lambda x: None\n")
    one_line(capsys, "verify", str(done), "--target", target)


LEAVING = {
    "while built": "def gone(): os._exit(0)",
    "while imported": "os._exit(0)\ndef gone(): return sound()",
    "under another name": "from os import _exit\ndef gone(): _exit(1)",
    "from the module beneath": "import posix\ndef gone(): posix._exit(0)",
    "in the first call": "class Gone(Means):\n    def forward(self, x): os._exit(0)\ndef gone(): return Gone().eval()",
    "when the process ends": "import atexit\natexit.register(os._exit, 0)\ndef gone(): raise KeyError('none')",
    "when it ends, bound early": "import atexit\nfrom os import _exit\natexit.register(_exit, 1)\ndef gone(): return 1",
}


@pytest.mark.parametrize("text", LEAVING.values(), ids=LEAVING)
def test_who_leaves_the_process_at_once_decides_no_status(folder, begun, text):
    write(folder, text)
    ran = begun("audit", "own.py:gone", *AUDIT, cwd=folder)
    assert ran.returncode == 2
    assert "unmask: " in ran.stderr


def test_processes_that_a_network_starts_leave_as_ever(folder, begun):
    write(
        folder,
        """
def forks():
    child = os.fork()
    if not child:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    raise KeyError("it left")
""",
    )
    ran = begun("audit", "own.py:forks", *AUDIT, cwd=folder)
    assert ran.returncode == 2
    assert "it left" in ran.stderr
