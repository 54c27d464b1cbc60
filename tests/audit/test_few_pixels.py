"""Audits whose adversary replaces few pixels or covers a square: found, judged, written, resumed, verified, refused."""

import json
from pathlib import Path

import pytest
import torch

from unmask.audit.controls.suites import LEFT_OUT
from unmask.audit.verifying.evidence_checks import lengths
from unmask.cli.main import main
from unmask.threat import BALLS, NORMS, threat_model

TARGET = """\
import torch
from torch import nn
from unmask.data import load


class NearestMean(nn.Module):
    "Linear; `rounded` hides its gradient and changes hardly an answer."

    def __init__(self, rounded):
        super().__init__()
        data = load("digits", split="train")
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.linear, self.rounded = nn.Linear(64, 10), rounded
        self.linear.weight.data = 2 * means
        self.linear.bias.data = -(means**2).sum(1)

    def forward(self, x):
        if self.rounded:
            x = torch.round(64 * x) / 64
        return self.linear(x.flatten(1))


def plain():
    return NearestMean(False).eval()


def masked():
    return NearestMean(True).eval()


def noisy():
    inner = NearestMean(False).eval()

    class Noisy(nn.Module):
        def forward(self, x):
            return inner(x + 0.02 * torch.randn_like(x))

    return Noisy().eval()
"""
FEW = [norm for norm in NORMS if norm not in BALLS]
BUDGET = {"l0": 3, "l0-elements": 3, "patch": 3}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(TARGET)
    return tmp_path


def words(name: str, norm: str, *more: str) -> list[str]:
    return [
        "audit", f"net.py:{name}", "--norm", norm, "--epsilon", str(BUDGET[norm]), "--examples", "12",
        "--budget", "quick", "--out", "out", *more,
    ]  # fmt: skip


def report_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


def best_margins(norm: str) -> tuple[torch.Tensor, torch.Tensor, torch.nn.Module]:
    """Of each image the least margin that an allowed point has: one linear problem for each other class."""
    from unmask.data import load

    scope: dict = {}
    exec(TARGET, scope)
    network, data = scope["plain"](), load("digits", examples=12)
    threat, weight = threat_model(norm, BUDGET[norm]), network.linear.weight
    logits = network(data.x).detach()
    least = torch.full((12,), torch.inf)
    for target in range(10):
        slope = (weight[data.y] - weight[target]).detach().reshape(-1, 1, 8, 8)
        fall = slope.abs() * torch.where(slope > 0, data.x, 1 - data.x)
        fall = (threat.support(threat.units(fall)) * fall).flatten(1).sum(1)
        margin = logits.gather(1, data.y[:, None])[:, 0] - logits[:, target] - fall
        least = torch.where(data.y == target, least, torch.minimum(least, margin))
    return least, data.y, network


@pytest.mark.parametrize("norm", FEW)
def test_a_masked_network_falls_as_far_as_the_closed_form_says_and_its_line_is_named(norm, here, capsys):
    assert main(words("masked", norm, "--claim", "0.9")) == 1
    found = report_of(here)
    exact = float((best_margins(norm)[0] > 0).double().mean())
    assert found["robust_accuracy"] == pytest.approx(exact, abs=1 / 12 + 1e-6)
    ball = {"norm": norm, "epsilon": BUDGET[norm], "goal": "untargeted", "radii": None}
    assert found["threat"] == ball
    assert found["naive_robust_accuracy"] > found["robust_accuracy"]
    assert [(m["operation"], m["line"]) for m in found["masking"]] == [("torch.round", 19)]
    left_out = {check.name: why for check, why in LEFT_OUT.items()}
    unmeant = {c["name"]: c["explanation"] for c in found["controls"] if c["name"] in left_out}
    assert unmeant == left_out
    curve = [p["epsilon"] for p in found["accuracy_against_epsilon"]]
    assert curve == sorted({int(e) for e in curve})
    assert "≤ 3" in capsys.readouterr().out.replace("\u00a0", " ")
    assert main(["verify", "out"]) == 0
    assert f"{norm} ball" in capsys.readouterr().out


def test_verify_finds_a_pixel_too_many(here, capsys):
    from safetensors.torch import load_file, save_file

    main(words("plain", "l0"))
    file = here / "out" / "evidence.safetensors"
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    x_adv = tensors["x_adv"]
    x_adv[0] = torch.where(x_adv[0] > 0.5, x_adv[0] - 0.01, x_adv[0] + 0.01)
    save_file(tensors, file, metadata)
    capsys.readouterr()
    assert main(["verify", "out"]) == 1
    assert "l0 ball" in capsys.readouterr().out


def test_goes_on_where_it_was_interrupted(here):
    main(words("masked", "patch"))
    whole = report_of(here)
    assert main(["audit", "--resume", "out"]) == 0
    assert report_of(here)["robust_accuracy"] == whole["robust_accuracy"]


def test_a_random_network_is_averaged_over_draws(here):
    assert main(words("noisy", "l0")) == 0
    found = report_of(here)
    assert found["robust_accuracy"] < found["clean_accuracy"]
    assert any("4 draws a step" in a["recipe"] for a in found["attacks"])


def test_an_adversary_who_is_told_scores_searches(here):
    assert main(words("masked", "l0", "--knowledge", "scores", "--queries", "300")) == 0
    found = report_of(here)
    assert found["attacks"][0]["recipe"].startswith("Sparse-RS-300")
    assert found["robust_accuracy"] < found["clean_accuracy"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["audit", "net.py:plain", "--norm", "l0", "--epsilon", "8/255"], "whole number"),
        (["audit", "net.py:plain", "--norm", "l0", "--epsilon", "64"], "64 pixels"),
        (["audit", "net.py:plain", "--norm", "patch", "--epsilon", "8"], "covers the whole"),
        (["audit", "net.py:plain", "--norm", "l0", "--epsilon", "3", "--knowledge", "labels"], "labels"),
        (["bound", "net.py:plain", "--norm", "l0", "--epsilon", "3"], "choose from 'linf', 'l2', 'l1'"),
    ],
)
def test_what_has_no_meaning_is_refused_in_one_line(words, says, here, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) <= 3


@pytest.mark.parametrize("norm", FEW)
@pytest.mark.parametrize("shape", [(7,), (2, 9), (3, 5, 6), (1, 3, 4, 5)])
def test_verify_counts_as_the_judge_does(norm, shape):
    if norm == "patch" and len(shape) == 1:
        pytest.skip("vectors have no places")
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(20, *shape, generator=rng)
    x_adv = torch.where(torch.rand(20, *shape, generator=rng) < 0.1, 1 - x, x)
    assert torch.equal(lengths(x_adv, x, norm), threat_model(norm, 2).distance(x_adv, x))
