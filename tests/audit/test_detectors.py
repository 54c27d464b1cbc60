"""The audit of a network beside a detector, told nothing of it."""

import pytest
import torch
from torch import nn

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses.detectors import Detection, Mahalanobis
from unmask.threat import Linf


@pytest.fixture(scope="module")
def guarded():
    """A network of digits whose hidden layers are watched; set at 5 % of images that it was not made of."""
    train = load("digits", split="train")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(25):
            for part in torch.randperm(len(train)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(train.x[part]), train.y[part]).backward()
                optimizer.step()
    network.eval().requires_grad_(False)
    detector = Mahalanobis(network, train.x[:900], train.y[:900], layers=["1", "3"])
    generator = torch.Generator().manual_seed(0)
    return Detection.at(0.05, detector, train.x[900:], generator=generator).wrap(Classifier(network))


def test_both_are_attacked_at_once_and_the_detector_is_named(guarded):
    report = audit(
        guarded,
        load("digits", examples=40),
        claim_about(Linf(epsilon=0.2), claim=0.9, budget="quick", exhaustive=True),
    )
    assert report.verdict == "refuted"
    assert report.robust_accuracy <= 0.05
    assert report.naive_robust_accuracy is not None
    assert report.naive_robust_accuracy - report.robust_accuracy >= 0.1
    assert [finding.mechanism for finding in report.masking] == ["detector"]
    assert "attacked together" in (report.masking[0].repair or "")
    joint = [attack for attack in report.attacks if attack.recipe.startswith("joint PGD")]
    assert joint[0].newly_broken > 0
