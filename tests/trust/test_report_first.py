"""The report stands before anything optional runs, and nothing optional takes it down."""

import ctypes
import json
import os
import sys

import numpy as np
import pytest
import torch
from torch import nn

import unmask.audit.report_builder as report_builder
from unmask.audit.run import audit
from unmask.claim.claim import Claim
from unmask.cli.main import main
from unmask.data import load
from unmask.errors import Interrupted
from unmask.types import SelfCertificate

from .networks import AUDIT, write

DATA = load("digits", examples=8)
CLAIM = Claim(norm="linf", epsilon=0.02, budget="quick")


class Means(nn.Module):
    """Linear; `behind` changes its logits."""

    def __init__(self, behind=lambda z: z):
        super().__init__()
        data = load("digits", split="train")
        means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
        self.linear, self.behind = nn.Linear(64, 10), behind
        self.linear.weight.data, self.linear.bias.data = 2 * means, -means.square().sum(1)

    def forward(self, x):
        return self.behind(self.linear(x.flatten(1)))


def native(z):
    if not isinstance(z, torch.Tensor):
        ctypes.string_at(0)
    return z


def in_numpy(z):
    return torch.from_numpy(np.asarray(z.detach()) @ np.eye(10, dtype=np.float32))


def by_proxy(z):
    if not isinstance(z, torch.Tensor):
        sys.exit(0)
    return z


def decides(z):
    return z * 2 if float(z.detach().abs().max()) > 1e6 else z


BEHIND = {
    "cat": lambda z: torch.cat([z[:, :5], z[:, 5:]], 1),
    "stack": lambda z: torch.stack([z, z], 2).mean(2),
    "einsum": lambda z: torch.einsum("bi,ij->bj", z, torch.eye(10)),
    "pad": lambda z: nn.functional.pad(z, (1, 1), value=-1.0)[:, 1:-1],
    "leaves by proxy": by_proxy,
    "decides": decides,
    "numpy": in_numpy,
    **({"crashes": native} if hasattr(os, "fork") else {}),
}


REST = ("stack", "pad", "leaves by proxy", "numpy")  # whose way is that of another, or long


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in REST)) for n in BEHIND])
def test_networks_that_no_bound_follows_have_a_report(name, tmp_path):
    report = audit(Means(BEHIND[name]).eval(), DATA, CLAIM, out=tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["examples"] == 8
    assert (tmp_path / "evidence.safetensors").is_file()
    assert report.robust_accuracy > 0.5
    assert (report.certified_accuracy is not None) == (name in ("cat", "stack"))


STAGES = {"bounds": ("certified_share", "certified_accuracy"), "CLEVER": ("estimated", "clever")}
ERRORS = [
    ZeroDivisionError("unlikely"),
    KeyError("x"),
    SystemExit(1),
    torch.OutOfMemoryError("no more"),
    OSError(28, "No space left on device"),
]


ALL = [(stage, error) for stage in STAGES for error in ERRORS]


@pytest.mark.parametrize(
    ("stage", "error"),
    [pytest.param(*one, marks=[pytest.mark.slow] * (n % 4 > 0)) for n, one in enumerate(ALL)],
    ids=repr,
)
def test_what_an_optional_stage_raises_is_a_warning(stage, error, tmp_path, monkeypatch):
    def fails(*_):
        assert (tmp_path / "report.json").is_file()
        assert (tmp_path / "evidence.safetensors").is_file()
        raise error

    name, key = STAGES[stage]
    monkeypatch.setattr(report_builder, name, fails)
    report = audit(Means().eval(), DATA, CLAIM, out=tmp_path)
    assert getattr(report, key) is None
    assert any(w.startswith(f"{stage}: none") and type(error).__name__ in w for w in report.warnings)
    assert json.loads((tmp_path / "report.json").read_text())["warnings"] == report.warnings


def test_a_stop_in_an_optional_stage_leaves_the_report(tmp_path, monkeypatch):
    def stopped(*_):
        raise Interrupted

    whole = audit(Means().eval(), DATA, CLAIM, out=tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(report_builder, "certified_share", stopped)
        with pytest.raises(Interrupted):
            audit(Means().eval(), DATA, CLAIM, out=tmp_path / "cut")
    early = json.loads((tmp_path / "cut" / "report.json").read_text())
    assert early["robust_accuracy"] == whole.robust_accuracy
    assert early["certified_accuracy"] is None
    again = audit(Means().eval(), DATA, CLAIM, out=tmp_path / "cut", resume=True)
    assert again.certified_accuracy == whole.certified_accuracy is not None


def test_a_certificate_of_its_own_that_raises():
    from unmask.classifier import Classifier

    def fails(classifier, x, y, threat, *, generator) -> SelfCertificate:
        raise IndexError("radius")

    report = audit(Classifier(Means().eval(), certificate=fails), DATA, CLAIM)
    assert report.certified_accuracy is None
    assert any("IndexError: radius" in w and "test_report_first.py" in w for w in report.warnings)


@pytest.mark.parametrize("error", [RuntimeError("no fonts"), OSError(28, "No space left on device")])
def test_a_page_that_cannot_be_drawn_keeps_the_verdict(tmp_path, monkeypatch, capsys, error):
    def fails(*_):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("unmask.report.html.write_html", fails)
    write(tmp_path, "")
    assert main(["audit", "own.py:sound", *AUDIT, "--out", "done"]) == 0
    sys.modules.pop("own", None)
    assert "report.html could not be written" in capsys.readouterr().err
    assert "report.html" in json.loads((tmp_path / "done" / "report.json").read_text())["warnings"][-1]
