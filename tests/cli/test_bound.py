"""`unmask bound`: what it prints, and one line for everything that cannot be."""

import json
import sys

import pytest

from unmask import threat
from unmask.cli.main import main, parser
from unmask.cli.options import BALLS

TARGETS = """
import torch
from torch import nn
from reproductions.clever.counterexamples import Staircase

def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def stairs():
    return nn.Sequential(Staircase(), linear())

def noisy():
    return nn.Sequential(linear(), nn.Dropout()).train()

class Shaken(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = linear()

    def forward(self, x):
        return self.inner(x + torch.randn_like(x))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(TARGETS)


def words(name, *more):
    return ["bound", f"mine.py:{name}", "--norm", "linf", "--epsilon", "0.4", "--budget", "quick", *more]


def test_three_radii_and_totals(capsys):
    assert main(words("linear", "--examples", "12")) == 0
    first = capsys.readouterr().out
    assert main(words("linear", "--examples", "12")) == 0
    second = capsys.readouterr().out
    assert first == second
    lines = first.splitlines()
    assert lines[0].split() == [
        "example",
        "label",
        "target",
        "certified",
        "CLEVER",
        "attack",
        "mark",
        "because",
    ]
    assert len(lines) == 12 + 4
    assert lines[-2].startswith("Medians (L∞): certified ")
    assert "0 refuted, 0 unreliable, 12 unrefuted. It is an estimate, no bound" in lines[-1]


def test_json_on_a_network_that_misleads(capsys):
    assert main(words("stairs", "--examples", "6", "--json")) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "CLEVER" in err
    assert found["threat"] == {"norm": "linf", "epsilon": 0.4, "goal": "untargeted", "radii": None}
    assert "ceil" in found["masking"]
    assert "mine.py" not in found["uncertified"]
    assert "`ceil` has no bound" in found["uncertified"]
    assert sum(found["counts"].values()) == len(found["examples"]) == 6
    right = [e for e in found["examples"] if e["attack"] > 0]
    assert right
    for example in right:
        assert (example["mark"], example["clever"], example["capped"]) == ("refuted", 0.4, True)
        assert example["attack"] < 0.4


@pytest.mark.parametrize("how", ["runner-up", "random", "least-likely"])
def test_targeted(how, capsys):
    assert main(words("linear", "--examples", "4", "--targeted", how, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["threat"]["goal"] == "targeted"
    for example in found["examples"]:
        # Not equal, although the network is linear: CLEVER does not know that pixels end at the box.
        assert example["clever"] <= example["certified"] * 1.01
        assert example["certified"] <= (example["attack"] or 1.0)


def test_half_precision_moves_the_estimate_a_little_and_the_bounds_not_at_all(capsys):
    found = []
    for more in ([], ["--half"]):
        assert main(words("linear", "--examples", "4", "--json", *more)) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert [f["clever"]["half"] for f in found] == [False, True]
    for exact, half in zip(*(f["examples"] for f in found), strict=True):
        assert half["clever"] == pytest.approx(exact["clever"], rel=0.005)
        assert half["clever"] != exact["clever"] or exact["degenerate"] == "misclassified"
        assert [half[k] for k in ("certified", "attack", "mark")] == [
            exact[k] for k in ("certified", "attack", "mark")
        ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--half=bfloat16"], "--half"),
        (["--epsilon", "0"], "--epsilon is 0"),
        (["--epsilon", "-1"], "--epsilon: -1.0 is no radius"),
        (["--batches", "3"], "batches is 3"),
        (["--samples", "0"], "samples is 0"),
        (["--examples", "501"], "holds 500"),
        (["--data", "nothing.npz"], "nothing.npz"),
        (["--certify", "magic"], "--certify"),
        (["--targeted", "7"], "--targeted"),
    ],
)
def test_one_line_for_what_cannot_be(change, message, capsys):
    assert main(words("linear", *change)) == 2
    err = capsys.readouterr().err.splitlines()
    assert err[-1].startswith("unmask: ")
    assert message in err[-1]


@pytest.mark.parametrize(
    ("name", "message"), [("noisy", "eval"), ("Shaken", "is random"), ("nobody", "nobody")]
)
def test_networks_without_a_distance(name, message, capsys):
    assert main(words(name, "--quiet")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert message in err


def test_nothing_given(capsys):
    assert main(["bound"]) == 2
    assert "no target" in capsys.readouterr().err


def test_only_norms_with_a_radius_to_bracket_are_offered(capsys):
    assert tuple(threat.BALLS) == BALLS
    with pytest.raises(SystemExit):
        parser().parse_args(["bound", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--norm {linf,l2,l1}" in said
    assert "epsilon pixels" not in said
    for norm in ("l0", "l0-elements", "patch"):
        assert main(words("linear", "--norm", norm)) == 2
        assert "choose from" in capsys.readouterr().err.splitlines()[-1]
