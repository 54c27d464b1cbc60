"""CLEVER in the audit: at the thorough budget only, and marked by what the audit itself found."""

from dataclasses import replace

import pytest
import torch
from reproductions.clever.counterexamples import Staircase
from torch import nn

from unmask.audit.context import subject_of
from unmask.audit.optional.estimate import estimated
from unmask.audit.records import CleverRecord, MaskingFinding
from unmask.claim.claim import claim_about
from unmask.data import Data
from unmask.judge import judge
from unmask.report import words
from unmask.threat import Linf


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).requires_grad_(False)


def asked(network, budget="thorough", epsilon=0.3, findings=(), attack=False):
    x = torch.rand(20, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    data = Data(x, y, "random", "", torch.arange(20))
    claim = claim_about(Linf(epsilon=epsilon), budget=budget, batch_size=32)
    subject = subject_of(network, data, claim)
    subject = replace(subject, classifier=subject.classifier.replace(deterministic=True))
    x_adv = x
    if attack:
        weight = linear()[1].weight
        direction = (
            torch.stack([weight[label] - weight[(label + 1) % 3] for label in y]).sign().reshape(x.shape)
        )
        x_adv = subject.threat.settle(x - 0.99 * epsilon * direction, x)
    final = judge(subject.classifier, x_adv, x, y, subject.threat, generator=subject.streams("judge"))
    return estimated(subject, x_adv, final, list(findings))


def test_only_at_the_thorough_budget():
    assert asked(linear(), "standard") is None
    assert asked(linear(), "quick") is None
    assert asked(linear(), epsilon=0.0) is None
    found = asked(linear())
    assert isinstance(found, CleverRecord)
    assert (found.examples, found.unrefuted) == (15, 15)  # one of the sixteen is wrong already
    assert 0 < found.median < 0.3


def test_marks_are_the_audits_own():
    finding = MaskingFinding(mechanism="shattered", symptom="its gradient is zero")
    assert asked(linear(), findings=[finding]).unreliable == 15
    stairs = nn.Sequential(Staircase(), linear())
    found = asked(stairs, attack=True)
    assert found.refuted >= 5
    assert found.unrefuted == 0
    assert found.median == pytest.approx(0.3)


def test_in_words():
    record = CleverRecord(
        examples=16, batches=50, samples=64, median=0.3, refuted=9, unreliable=7, unrefuted=0
    )
    report = type("R", (), {"clever": record, "threat": Linf(epsilon=0.3)})()
    said = words.clever_sentence(report)
    assert "the whole ball" in said
    assert "9 refuted, 7 unreliable, 0 unrefuted; an estimate, no bound" in said
    report.clever = None
    assert words.clever_sentence(report) == ""
