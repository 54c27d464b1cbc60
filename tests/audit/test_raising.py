"""A network that rejects by raising is audited like one that returns a score; its comparison is named."""

import json
from pathlib import Path

from unmask.audit.verify import verify
from unmask.cli.main import main

TARGET = """
from torch import nn
from unmask import Raising
from tests.fixtures.case import fixture

class Rejected(Exception):
    pass

class Raises(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside = fixture("reconstruction_detector").build()

    def forward(self, x):
        error = self.inside.detector(x)
        if (error > self.inside.threshold).any():  # guilty
            raise Rejected("this does not look like a digit")
        return self.inside.base(x)

def raises():
    return Raising(Raises().eval(), Rejected)

def bare():
    return Raises().eval()
"""


def test_the_comparison_is_named_and_passed_and_what_was_found_is_verified(tmp_path, monkeypatch, capsys):
    file = tmp_path / "net.py"
    file.write_text(TARGET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    words = ["audit", "net.py:raises", "--norm", "linf", "--epsilon", "0.2", "--examples", "10"]
    words += ["--budget", "quick", "--quiet"]
    assert main([*words, "--out", "out"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (finding,) = report["masking"]
    assert finding["mechanism"] == "detector"
    assert "# guilty" in TARGET.splitlines()[finding["line"] - 1]
    assert report["robust_accuracy"] == 0  # as by its score: test_detector.py
    assert report["naive_robust_accuracy"] > 0.5
    rejected = finding["statistics"]["false_positive_rate"]
    assert rejected > 0  # an image that is right and rejected is as right to the verifier
    outcome = verify(tmp_path / "out")
    assert outcome.holds, outcome.checks
    # Without `Raising` nobody can know that this exception is an answer.
    capsys.readouterr()
    assert main(["audit", "net.py:bare", *words[2:], "--out", "bare"]) == 2
    err = capsys.readouterr().err
    assert "raised Rejected: this does not look like a digit" in err
    assert err.count("\n") == 1
