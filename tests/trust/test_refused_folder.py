"""A command that was refused before anything ran leaves nothing: corrected, it works in the same folder."""

import json
import os
import sys

import pytest

from unmask.audit.runtime.journal import LOCK, SETTINGS, Journal, forget_unbegun
from unmask.cli.main import main
from unmask.cli.options import COMMAND
from unmask.errors import UnusableInput

from .networks import AUDIT, write

REFUSED = """
class Trains(Means):
    "In train mode, where it answers otherwise."
    def __init__(self):
        super().__init__()
        self.drop = nn.BatchNorm2d(1)
    def forward(self, x):
        return super().forward(self.drop(x) / 3)

def trains():
    return Trains().train()

def swapped():
    net = Means().eval()
    net.linear.weight.data = net.linear.weight.data.roll(1, 0)
    return net

def empty():
    net = Means().eval()
    net.linear.weight.data[:] = float("nan")
    return net

def raises():
    class Raises(Means):
        def forward(self, x):
            raise ValueError("not yet")
    return Raises().eval()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, REFUSED)
    yield tmp_path
    sys.modules.pop("own", None)


WRONG = {
    "train mode": ["own.py:trains"],
    "NaN": ["own.py:empty"],
    "an exception": ["own.py:raises"],
    "a claim that clean images contradict": ["own.py:swapped", "--claim", "0.9"],
    "no such callable": ["own.py:nothing"],
    "units": ["own.py:sound", "--epsilon", "8"],
}


def audit(*words, out="out"):
    words = [*words, *AUDIT] if "--epsilon" not in words else [*AUDIT, *words]
    return main(["audit", *words, "--out", out])


@pytest.mark.parametrize("what", WRONG)
def test_a_refused_command_leaves_no_folder(folder, what):
    assert audit(*WRONG[what]) == 2
    assert not (folder / "out").exists()


def test_the_corrected_command_works_in_the_same_folder(folder, capsys):
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")
    assert audit("own.py:trains") == 2
    assert [path.name for path in (folder / "out").iterdir()] == ["notes.txt"]
    assert audit("own.py:sound") == 0, capsys.readouterr().err
    assert json.loads((folder / "out" / COMMAND).read_text())["target"] == "own.py:sound"


@pytest.mark.parametrize("left", [[], [SETTINGS], [SETTINGS, LOCK]])
def test_what_was_killed_before_its_first_step_is_begun_anew(folder, capsys, left):
    journal = folder / "out" / "journal"
    journal.mkdir(parents=True)
    (folder / "out" / COMMAND).write_text('{"target": "own.py:trains"}')
    for name in left:
        (journal / name).write_text("{}")
    assert audit("own.py:trains") == 2
    assert "train mode" in capsys.readouterr().err  # and not: already holds an audit
    assert not journal.exists()


def test_steps_stay_and_so_does_what_is_being_written(folder, capsys):
    journal = Journal(folder / "out" / "journal", {"a": 1})
    (folder / "out" / COMMAND).write_text('{"target": "own.py:sound"}')
    assert audit("own.py:sound") == 2
    assert "another audit is writing" in capsys.readouterr().err
    journal.put("a step", {})
    journal.close()
    assert not forget_unbegun(journal.folder)
    assert audit("own.py:sound") == 2
    assert "already holds an audit" in capsys.readouterr().err
    assert "a step" in journal


def test_nobody_holds_a_lock_that_was_removed(tmp_path, monkeypatch):
    """Between opening the lock's file and locking it, another process removes it."""
    real, removed = os.open, []

    def opens(path, *rest, **more):
        found = real(path, *rest, **more)
        if str(path).endswith(LOCK) and not removed:
            removed.append(path)
            os.unlink(path)
        return found

    monkeypatch.setattr(os, "open", opens)
    first = Journal(tmp_path / "journal", {})
    monkeypatch.undo()
    with pytest.raises(UnusableInput, match="another audit is writing"):
        Journal(tmp_path / "journal", {})
    first.close()
