"""A detector that hides adversarial examples is named, with its line; one that never objects is not."""

from pathlib import Path

import pytest
import torch
from tests.fixtures import BROKEN, HONEST
from torch import nn

from unmask import Outputs
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.threat import Linf

DATA = load("digits", examples=24)
CASES = {case.name: case for case in (*BROKEN, *HONEST)}


class Beside(nn.Module):
    def __init__(self, network, score):
        super().__init__()
        self.network, self.score = network, score

    def forward(self, x):
        return Outputs(self.network(x), self.score(x))


def test_a_detector_that_misleads_the_standard_attack_is_named_with_its_line():
    case = CASES["reconstruction_detector"]
    report = audit(case.build(), DATA, claim_about(Linf(epsilon=case.epsilon), budget="quick"))
    (finding,) = report.masking
    assert finding.mechanism == "detector"
    assert (Path(finding.file).resolve(), finding.line) in case.guilty
    assert finding.operation == "torch.mul"
    assert finding.statistics["rejected_of_fooled"] > 0.9
    assert finding.statistics["false_positive_rate"] < 0.15
    assert report.robust_accuracy < report.naive_robust_accuracy - 0.5


def test_a_detector_that_never_objects_is_no_finding():
    network = Beside(CASES["honest_plain"].build(), lambda x: x.flatten(1).mean(1) - 2)
    report = audit(network, DATA[:8], claim_about(Linf(epsilon=0.1), budget="quick"))
    assert not report.masking


def test_a_detector_that_objects_to_every_change_is_robust_and_no_finding():
    """The clean digits have 17 grey levels; what has others is rejected, and nothing gets past it."""
    network = Beside(
        CASES["honest_plain"].build(), lambda x: (x - (16 * x).round() / 16).abs().flatten(1).amax(1) - 1e-4
    )
    report = audit(network, DATA[:8], claim_about(Linf(epsilon=0.03), budget="quick"))
    assert report.robust_accuracy == pytest.approx(report.clean_accuracy)
    assert not report.masking


class WithItsClass(nn.Module):
    """The fixture's detector as the eleventh class."""

    def __init__(self):
        super().__init__()
        self.inside = CASES["reconstruction_detector"].build()

    def forward(self, x):
        outputs = self.inside(x)
        largest = outputs.logits.amax(1, keepdim=True)
        logits = torch.cat([outputs.logits, largest + outputs.detector_score[:, None]], 1)
        return Outputs.with_reject_class(logits, reject=-1)


def test_a_class_for_rejection_is_attacked_like_a_score():
    report = audit(WithItsClass().eval(), DATA, claim_about(Linf(epsilon=0.2), budget="quick"))
    assert [finding.mechanism for finding in report.masking] == ["detector"]
    assert report.robust_accuracy < report.naive_robust_accuracy - 0.5


def test_a_class_for_rejection_is_a_detector():
    logits = torch.tensor([[3.0, 5.0, 1.0], [0.0, 2.0, 7.0]])
    first = Outputs.with_reject_class(logits, reject=0)
    assert torch.equal(first.logits, logits[:, 1:])
    assert first.detector_score.tolist() == [-2.0, -7.0]
    assert torch.equal(
        Outputs.with_reject_class(logits, reject=-1).logits,
        Outputs.with_reject_class(logits, reject=2).logits,
    )
