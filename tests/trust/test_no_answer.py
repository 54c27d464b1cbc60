"""A network that gives no answer beside an image has not been shown to be right there."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from unmask.audit.controls.consistency import answers_everywhere
from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.types import Outputs

from .networks import AUDIT, write

MUTE = """
class Mute(Means):
    "Logits as they are on clean digits, which are multiples of a sixteenth; elsewhere what `other` makes of them."

    def __init__(self, other):
        super().__init__()
        self.other = other

    def forward(self, x):
        logits = super().forward(x)
        off = ((x * 16).round() != x * 16).flatten(1).any(1, keepdim=True)
        return torch.where(off, self.other(logits), logits)


def all_nan(): return Mute(lambda logits: logits * torch.nan).eval()
def all_infinite(): return Mute(lambda logits: logits + torch.inf).eval()
def one_nan(): return Mute(lambda logits: torch.cat([logits[:, :1] * torch.nan, logits[:, 1:]], 1)).eval()
def divides_by_nought(): return Mute(lambda logits: logits / (logits - logits)).eval()
def all_equal(): return Mute(lambda logits: logits * 0).eval()
"""


def audited(folder, monkeypatch, name):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(folder, MUTE)
    try:
        status = main(["audit", f"own.py:{name}", *AUDIT, "--claim", "0.9", "--out", "out"])
    finally:
        sys.modules.pop("own", None)
    return status, json.loads((folder / "out" / "report.json").read_text())


@pytest.mark.parametrize(
    "name",
    [
        "all_infinite",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("all_nan", "one_nan", "divides_by_nought")),
    ],
)
def test_no_answer_refutes_nothing_and_supports_nothing(tmp_path, monkeypatch, name):
    status, report = audited(tmp_path, monkeypatch, name)
    assert (status, report["verdict"]) == (3, "inconclusive")
    control = next(c for c in report["controls"] if c["name"] == "an answer at every point")
    assert control["passed"] is False
    assert "NaN or infinite" in control["explanation"]


def test_equal_logits_are_an_answer_and_a_wrong_one(tmp_path, monkeypatch):
    status, report = audited(tmp_path, monkeypatch, "all_equal")
    assert (status, report["verdict"]) == (1, "refuted")


def examined(mute, rates):
    return answers_everywhere(
        SimpleNamespace(mute=torch.tensor(mute)), SimpleNamespace(failure_rate=torch.tensor(rates))
    )


def test_only_survivors_are_asked():
    assert examined([True, False], [1.0, 0.0]).passed
    found = examined([True, True, False, False], [1.0, 0.0, 0.0, 0.0])
    assert not found.passed
    assert found.value == 0.25
    assert found.decisive
    assert examined([False, False], [0.0, 1.0]).role is None


def test_who_rejects_an_input_has_answered():
    def network(x):
        logits = torch.full((len(x), 2), torch.nan)
        return Outputs(logits, torch.tensor([1.0, -1.0, torch.nan]))

    x, y = torch.zeros(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    streams = Streams.seeded(0, torch.arange(3))
    seen = judge(Classifier(network), x, x, y, Linf(epsilon=0.1), generator=streams)
    assert seen.finite.tolist() == [True, False, False]
    assert seen.failure_rate.tolist() == [0, 0, 0]
