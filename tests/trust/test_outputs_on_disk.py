"""Folders that cannot be written, disks that fill up, data that cannot be read: one line, and nothing is lost."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from unmask.audit.runtime import journal
from unmask.cli.main import main
from unmask.training.standard import Standard

from .networks import AUDIT, write


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, "")
    yield tmp_path
    sys.modules.pop("own", None)


def one_line(capsys, *argv) -> str:
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    line = err.splitlines()[-1]
    assert line.startswith("unmask: ")
    return line


TRAIN = ["train", "standard", "--arch", "mlp", "--examples", "300"]
COMMANDS = {
    "audit": ["audit", "own.py:sound", *AUDIT],
    "train": [*TRAIN, "--epochs", "1"],
    "demo": ["demo"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", ["a file", "below a file", "no room", "not allowed"])
def test_the_folder_is_held_before_anything_is_loaded(folder, capsys, monkeypatch, command, place):
    (folder / "file").write_text("here")
    loaded = [
        ("unmask.target.target", "load_target"),
        ("unmask.cli.train", "build"),
        ("unmask.cli.demo", "write_defence"),
    ]
    for module, name in loaded:
        __import__(module)
        monkeypatch.setattr(f"{module}.{name}", lambda *_, **__: pytest.fail("something was loaded"))
    out = {"a file": "file", "below a file": "file/sub/out"}.get(place, "new")
    if place in ("no room", "not allowed"):
        error = OSError(28, "No space left on device") if place == "no room" else PermissionError(13, "no")

        def refuses(self, content):
            raise error

        monkeypatch.setattr(Path, "write_bytes", refuses)
    assert f"--out {out} " in one_line(capsys, *COMMANDS[command], "--out", out)
    assert not (folder / "new").exists()
    assert (folder / "file").read_text() == "here"


def test_a_folder_made_for_nothing_goes_again(folder, capsys):
    one_line(capsys, "audit", "own.py:nothing", *AUDIT, "--out", "new")
    assert not (folder / "new").exists()
    (folder / "there").mkdir()
    one_line(capsys, "audit", "own.py:nothing", *AUDIT, "--out", "there")
    assert (folder / "there").is_dir()


FULL, BROKEN = OSError(28, "No space left on device"), OSError(5, "Input/output error")


@pytest.mark.parametrize(("at", "error"), [(0, FULL), (3, FULL), (9, BROKEN)], ids=repr)
def test_a_disk_that_fills_up_is_one_line_and_resumable(folder, capsys, monkeypatch, at, error):
    real, count = journal.os.fsync, 0

    def fails(descriptor):
        nonlocal count
        count += 1
        if count > at:
            raise error
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", fails)
        line = one_line(capsys, "audit", "own.py:sound", *AUDIT, "--claim", "0.2", "--out", "out")
    assert error.strerror in line
    assert not list((folder / "out").rglob(".*.entry.*"))  # no halves are in the way
    if at:  # the audit had begun
        assert "--resume out" in line
    if at == 3:
        assert main(["audit", "--resume", "out", "--quiet"]) == 0
        assert json.loads((folder / "out" / "report.json").read_text())["examples"] == 8


def test_a_folder_that_vanishes(folder, capsys, monkeypatch):
    real, count = journal.write_atomically, 0

    def vanishes(path, content):
        nonlocal count
        count += 1
        if count == 4:
            shutil.rmtree(folder / "out")
        real(path, content)

    monkeypatch.setattr(journal, "write_atomically", vanishes)
    assert "No such file" in one_line(capsys, "audit", "own.py:sound", *AUDIT, "--out", "out")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 broken", b"\x00" * 100])
@pytest.mark.parametrize("name", ["data.npz", "data.safetensors"])
def test_data_that_cannot_be_read(folder, capsys, content, name):
    (folder / name).write_bytes(content)
    assert name in one_line(capsys, "audit", "own.py:sound", *AUDIT, "--data", name)


def test_a_folder_in_the_place_of_a_file(folder, capsys):
    (folder / "data.npz").mkdir()
    assert "data.npz" in one_line(capsys, "audit", "own.py:sound", *AUDIT, "--data", "data.npz")
    for name in ("report.json", "command.json"):
        (folder / "odd" / name).mkdir(parents=True)
    one_line(capsys, "verify", "odd")
    one_line(capsys, "audit", "--resume", "odd")


# training that is no training any more


def train_on(folder, *more):
    return main([*TRAIN, "--epochs", "3", "--out", "made", *more])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("epoch", [0, 1])
def test_training_that_diverges_keeps_the_last_finite_epoch(folder, capsys, monkeypatch, value, epoch):
    real, calls = Standard.learn, 0

    def learn(self, run, x, y):
        nonlocal calls
        calls += 1
        seen = real(self, run, x, y)
        return (
            type(seen)(seen.loss * value, seen.logits) if calls > 2 * epoch else seen
        )  # two batches an epoch

    monkeypatch.setattr(Standard, "learn", learn)
    assert train_on(folder) == 2
    err = capsys.readouterr().err
    assert f"in epoch {epoch + 1}" in err
    assert (folder / "made" / "network.safetensors").exists() == (epoch > 0)


def test_weights_that_are_no_numbers_are_noticed_at_a_finite_loss(folder, capsys, monkeypatch):
    real, calls = Standard.learn, 0

    def learn(self, run, x, y):
        nonlocal calls
        calls += 1
        seen = real(self, run, x, y)
        if calls == 4:  # the last batch of the second epoch
            next(run.network.parameters()).data.fill_(float("nan"))
        return seen

    monkeypatch.setattr(Standard, "learn", learn)
    assert train_on(folder) == 2
    assert "in epoch 2" in capsys.readouterr().err
    from safetensors.torch import load_file

    weights = load_file(folder / "made" / "network.safetensors")
    assert all(bool(t.isfinite().all()) for t in weights.values() if t.is_floating_point())


def test_a_learning_rate_that_is_far_too_large(folder, capsys):
    assert train_on(folder, "--learning-rate", "1e18") == 2
    assert "lower the learning rate (1e+18)" in capsys.readouterr().err
