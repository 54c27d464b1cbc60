"""`--resume` goes on with the same audit, or says what is another."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

import unmask.audit.run as run
from unmask.attacks import PGD
from unmask.audit.run import audit
from unmask.audit.runtime.journal import LOCK, SETTINGS, Journal
from unmask.audit.runtime.progress import Silent
from unmask.claim.claim import Claim
from unmask.cli.main import main
from unmask.data import Data, load
from unmask.errors import Interrupted, UnusableInput
from unmask.target.load import checkpoint_hash
from unmask.target.source_files import files_behind

DATA = load("digits", examples=8)
CLAIM = Claim(norm="linf", epsilon=0.05, budget="quick")


def linear(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()


class Stops(Silent):
    """Interrupts at the race, when there is something to resume."""

    def stage(self, name):
        if name == "standard attack":
            raise KeyboardInterrupt


@pytest.fixture
def begun(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        audit(linear(), DATA, CLAIM, out=tmp_path, progress=Stops())
    assert list((tmp_path / "journal").glob("*.entry"))
    return tmp_path


@dataclass(frozen=True)
class Other(PGD):
    """An attack of the user's."""


def changed(how):
    """Images, labels or places of another data set of the same name and size."""
    x, y, index = DATA.x.clone(), DATA.y.clone(), DATA.index.clone()
    if how == "a pixel":
        x[3, 0, 2, 2] = 1 - x[3, 0, 2, 2]
    elif how == "a label":
        y[0] = (y[0] + 1) % 10
    elif how == "order":
        x, y = x.flip(0), y.flip(0)
    else:
        index = index + 1
    return Data(x, y, DATA.name, DATA.split, index)


@pytest.mark.parametrize(
    ("how", "named"),
    [("a pixel", "images"), ("a label", "labels"), ("order", "images"), ("places", "labels")],
)
def test_other_data_of_the_same_name_are_refused(begun, how, named):
    with pytest.raises(UnusableInput, match=f"begun with {named} = .*, not "):
        audit(linear(), changed(how), CLAIM, out=begun, resume=True)


def test_other_weights_attacks_options_and_versions_are_refused(begun, monkeypatch):
    for network, claim, attacks, named in (
        (linear(1), CLAIM, (), "checkpoint"),
        (linear(), CLAIM.model_copy(update={"seed": 1}), (), "seed"),
        (linear(), CLAIM.model_copy(update={"claim": 0.5}), (), "claim"),
        (linear(), CLAIM, (Other(),), "attack Other"),
    ):
        with pytest.raises(UnusableInput, match=f"begun with {named} = "):
            audit(network, DATA, claim, out=begun, resume=True, attacks=attacks)
    monkeypatch.setattr(torch, "__version__", "1.0")
    with pytest.raises(UnusableInput, match=r"begun with torch = .*, not 1\.0"):
        audit(linear(), DATA, CLAIM, out=begun, resume=True)


def test_the_same_goes_on_and_an_attack_with_other_fields_is_another(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        audit(linear(), DATA, CLAIM, out=tmp_path, progress=Stops(), attacks=[Other(steps=3)])
    with pytest.raises(UnusableInput, match="begun with attack Other"):
        audit(linear(), DATA, CLAIM, out=tmp_path, resume=True, attacks=[Other(steps=4)])
    report = audit(linear(), DATA, CLAIM, out=tmp_path, resume=True, attacks=[Other(steps=3)])
    assert report.robust_accuracy == audit(linear(), DATA, CLAIM, attacks=[Other(steps=3)]).robust_accuracy


TARGET = """
import torch
from layers import scale
def network():
    torch.manual_seed(0)
    from parts.head import head
    return torch.nn.Sequential(torch.nn.Flatten(), head()).eval()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "parts").mkdir()
    (tmp_path / "net.py").write_text(TARGET)
    (tmp_path / "layers.py").write_text("scale = 1\n")
    (tmp_path / "parts" / "head.py").write_text("import torch\ndef head(): return torch.nn.Linear(64, 10)\n")
    (tmp_path / "unrelated.py").write_text("nobody = 'imports this'\n")
    np.savez(tmp_path / "a.npz", x=DATA.x.numpy(), y=DATA.y.numpy())
    yield tmp_path
    for name in ("net", "layers", "parts", "parts.head"):
        sys.modules.pop(name, None)


def test_every_file_that_is_imported_counts_and_no_other(folder):
    files = files_behind(folder / "net.py")
    assert set(files) == {"net.py", "layers.py", "parts/head.py"}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("data", "images"),
        ("net.py", r"source net\.py"),
        ("layers.py", r"source layers\.py"),
        ("parts/head.py", r"source parts/head\.py"),
        (None, None),
    ],
)
def test_at_the_command_line(folder, capsys, monkeypatch, change, named):
    argv = "audit net.py:network --data a.npz --norm linf --epsilon 0.05 --budget quick --quiet --out here".split()

    def stop(*_, **__):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(run, "candidates", stop)
        assert main(argv) == 130
    capsys.readouterr()
    for name in ("net", "layers", "parts", "parts.head"):  # as another process begins
        sys.modules.pop(name, None)
    assert list((folder / "here" / "journal").glob("*.entry"))
    if change == "data":
        np.savez(folder / "a.npz", x=1 - DATA.x.numpy(), y=DATA.y.numpy())
    elif change:
        with (folder / change).open("a") as file:
            file.write("# another\n")
    status = main(["audit", "--resume", "here", "--quiet"])
    told = capsys.readouterr().err
    if named is None:
        assert status == 0, told
        return
    assert status == 2
    assert told.count("\n") == 1
    assert re.search(f"begun with {named} = ", told), told


@pytest.mark.parametrize("how", ["missing", "empty", "cut", "a list"])
def test_settings_that_say_nothing_are_refused(begun, how):
    settings = begun / "journal" / SETTINGS
    text = settings.read_text()
    contents = {"empty": "", "cut": text[: len(text) // 2], "a list": "[]"}
    if how == "missing":
        settings.unlink()
    else:
        settings.write_text(contents[how])
    for resume in (True, False):
        with pytest.raises(UnusableInput, match=r"settings\.json is missing or damaged"):
            audit(linear(), DATA, CLAIM, out=begun, resume=resume)


def test_an_entry_answers_to_its_own_step_and_audit_only(tmp_path):
    journal = Journal(tmp_path / "one", {"a": 1})
    journal.put("clean", {"n": 1})
    journal.put("race", {"n": 2})
    shutil.copy(journal._path("race"), journal._path("clean"))
    with pytest.warns(UserWarning, match="'clean'.* is of another step or audit; its step runs again"):
        assert journal.get("clean") is None
    assert journal.get("race").record == {"n": 2}
    other = Journal(tmp_path / "two", {"a": 2})
    shutil.copy(journal._path("race"), other._path("race"))
    with pytest.warns(UserWarning, match="another step or audit"):
        assert other.get("race") is None
    moved = journal._path("race").rename(journal._path("final"))
    with pytest.warns(UserWarning, match="another step or audit"):
        assert journal.get("final") is None
    assert not moved.exists()


HOLDER = """
import sys, time
from unmask.audit.runtime.journal import Journal
journal = Journal(sys.argv[1], {"a": 1}, resume=True)
print("open", flush=True)
time.sleep(60)
"""


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path):
    first = Journal(tmp_path, {"a": 1})
    with pytest.raises(UnusableInput, match="another audit is writing in"):
        Journal(tmp_path, {"a": 1}, resume=True)
    first.close()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "open\n"
    with pytest.raises(UnusableInput, match="another audit is writing in"):
        Journal(tmp_path, {"a": 1}, resume=True)
    holder.kill()
    holder.communicate()
    Journal(tmp_path, {"a": 1}, resume=True).close()  # the lock went with the process, the file stays
    assert (tmp_path / LOCK).exists()


class Scratch(nn.Module):
    """Keeps working space in buffers that are no part of its checkpoint."""

    def __init__(self, persistent):
        super().__init__()
        self.f = linear()
        self.register_buffer("mem", torch.zeros(0), persistent=persistent)

    def forward(self, x):
        self.mem = self.f(x)
        return self.mem


@pytest.mark.parametrize("nested", [False, True])
def test_scratch_space_is_no_other_checkpoint(nested):
    network = Scratch(persistent=False)
    whole = nn.Sequential(network) if nested else network
    before = checkpoint_hash(whole)
    whole(DATA.x)
    assert checkpoint_hash(whole) == before
    with torch.no_grad():
        network.f[1].bias += 1
    assert checkpoint_hash(whole) != before


def test_what_is_saved_with_the_weights_is():
    network = Scratch(persistent=True)
    before = checkpoint_hash(network)
    network(DATA.x)
    assert checkpoint_hash(network) != before


def test_settings_are_written_with_the_hashes(begun):
    settings = json.loads((begun / "journal" / SETTINGS).read_text())
    for name in ("images", "labels", "source of the network", "torch", "checkpoint", "seed", "claim"):
        assert name in settings
