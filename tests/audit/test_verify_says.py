"""What `unmask verify` runs, on what conditions, and what it says that it has not checked."""

import hashlib
import json
import shutil
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.audit.small_audit import TARGET, small_audit, write_target

import unmask
from unmask.audit.verify import refuse_code_inside
from unmask.cli.main import main
from unmask.errors import UnusableInput


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    small_audit(tmp_path / "out", f"{write_target(tmp_path)}:linear")
    return tmp_path


def verify(*argv):
    return main(["verify", *map(str, argv)])


def test_it_names_what_it_runs_and_what_it_proves(folder, capsys):
    assert verify(folder / "out") == 0
    out, err = (" ".join(text.split()) for text in capsys.readouterr())
    assert hashlib.sha256(TARGET.encode()).hexdigest() in err
    assert "The evidence proves that at most" in out
    assert "it cannot show that nothing was left out" in out
    assert "Taken at the report's word: naive_robust_accuracy, masking, attacks, cost, environment" in out
    assert unmask.verify(folder / "out").unchecked


def test_every_check_has_its_name_and_what_it_found(folder):
    stated = json.loads((folder / "out" / "report.json").read_text())
    found = unmask.verify(folder / "out")
    n = found.total
    every = f"{n} of {n}"
    assert found.holds
    assert (found.verified, found.examples) == (n, stated["examples"])
    assert 0 < found.proves < 1
    assert found.proves == pytest.approx(stated["robust_accuracy"])
    said = {check.name: check.found for check in found.checks}
    own = (
        "in the data set, once",
        "true label",
        "finite",
        "in the box [0, 1]",
        "failure rate",
        "seen as stated",
    )
    assert [said[name] for name in (*own, "in the linf ball of radius 0.1", "misclassified")] == [every] * 8
    assert said["clean images"] == "the audited ones"


def test_what_fails_is_told_by_its_place(folder):
    evidence = load_file(folder / "out" / "evidence.safetensors")
    with safe_open(folder / "out" / "evidence.safetensors", "pt") as file:
        notes = file.metadata()
    evidence["x_adv"][[1, 3]] += 0.5
    save_file(evidence, folder / "out" / "evidence.safetensors", metadata=notes)
    found = unmask.verify(folder / "out")
    places = ", ".join(str(int(n)) for n in evidence["index"][[1, 3]])
    said = {check.name: check.found for check in found.checks if not check.holds}
    ball = said["in the linf ball of radius 0.1"]
    assert ball == f"{found.total - 2} of {found.total}; not example {places}"
    assert found.verified == found.total - 2
    assert found.proves == pytest.approx(1 - found.verified / found.examples)


@pytest.mark.parametrize("spelt", ["out/nearest_mean.py", "./out/../out/nearest_mean.py", "absolute"])
def test_code_inside_the_folder_is_run_only_if_it_is_named(folder, capsys, spelt):
    shutil.copy(folder / "nearest_mean.py", folder / "out")
    place = str(folder / "out" / "nearest_mean.py") if spelt == "absolute" else spelt
    small_audit(folder / "out", f"{place}:linear")
    assert verify(folder / "out") == 2
    assert f"--target {place}:linear" in capsys.readouterr().err
    assert verify(folder / "out", "--target", f"{place}:linear") == 0
    refuse_code_inside(folder / "out", "package.module:network")


def test_a_link_into_the_folder_is_inside_too(folder):
    shutil.copy(folder / "nearest_mean.py", folder / "out" / "hidden.py")
    (folder / "harmless.py").symlink_to(folder / "out" / "hidden.py")
    with pytest.raises(UnusableInput, match="lies in"):
        refuse_code_inside(folder / "out", f"{folder / 'harmless.py'}:linear + jpeg(quality=75)")


@pytest.mark.parametrize(
    ("line", "holds"),
    [("claim = 0.9", True), ("claim = 0.5", False), ("budget = 'thorough'", False), ("norm = 'l2'", False)],
)
def test_the_claims_own_file(folder, capsys, line, holds):
    least = {"target": "'nearest_mean.py:linear'", "norm": "'linf'", "epsilon": "0.1"}
    key, _, value = line.partition(" = ")
    text = "".join(f"{k} = {v}\n" for k, v in (least | {key: value}).items())
    (folder / "claim.toml").write_text(text)
    assert verify(folder / "out", "--claim-file", folder / "claim.toml") == (0 if holds else 1)
    assert ("as claim.toml states" in capsys.readouterr().out.splitlines()[-1]) is not holds


CALIBRATES = """
import torch
from nearest_mean import NearestMean
def network():
    net = NearestMean()
    weight = net.linear.weight
    (0 * net(torch.rand(4, 1, 8, 8)).sum()).backward()
    with torch.no_grad():
        weight -= weight.grad
    return net.eval()
class Once(NearestMean):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(0), persistent=False)
    def forward(self, x):
        self.seen = torch.ones(len(x))
        return super().forward(x)
def once():
    return Once().eval()
def raises():
    raise ValueError("no weights")
class Stops(NearestMean):
    def forward(self, x):
        raise SystemExit(0)
def stops():
    return Stops().eval()
class Words(NearestMean):
    def forward(self, x):
        return "logits"
def words():
    return Words().eval()
"""


@pytest.mark.parametrize("name", ["network", "once"])
def test_it_builds_the_target_as_the_audit_does(folder, name):
    (folder / "calibrates.py").write_text(CALIBRATES)
    small_audit(folder / "out", f"{folder / 'calibrates.py'}:{name}")
    assert verify(folder / "out") == 0


@pytest.mark.parametrize("name", ["raises", "stops", "words"])
def test_a_network_that_fails_is_one_line(folder, capsys, name):
    (folder / "calibrates.py").write_text(CALIBRATES)
    assert verify(folder / "out", "--target", f"{folder / 'calibrates.py'}:{name}", "--quiet") == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "change",
    [
        {"examples": 10**12},
        {"passes": 10**9},
        {"environment": "here"},
        {"robust_accuracy": 1.5},
        {"robust_accuracy_interval": [-1, 2]},
        {"claim": float("nan")},
        {"masking": [[[]]]},
        {"seed": 1},
    ],
)
def test_nonsense_in_the_report_is_one_line(folder, capsys, change):
    file = folder / "out" / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    assert verify(folder / "out") == 2
    assert capsys.readouterr().err.count("unmask: ") == 1


@pytest.mark.parametrize("facts", ["{}", "[]", "[" * 100_000, '{"schema": 1}', "no json"])
def test_nonsense_in_the_evidence_is_one_line(folder, capsys, facts):
    save_file({"x_adv": torch.zeros(3)}, folder / "out" / "evidence.safetensors", {"unmask": facts})
    assert verify(folder / "out") == 2
    assert "is damaged" in capsys.readouterr().err
