import math

import pytest
import torch
from torch import nn

from unmask.diagnostics import GradientShare
from unmask.objectives import margin_loss

from .conftest import Quantised, Scaled


def test_honest_networks_have_a_gradient(honest, examine):
    reading = examine(GradientShare(), honest)
    assert reading.passed, reading
    assert reading.value == 0


def test_a_quantised_network_has_none(base, examine):
    reading = examine(GradientShare(), Quantised(base))
    assert reading.passed is False
    assert reading.value == 1
    assert reading.statistics["MarginLoss.zero_elements"] == 1


def test_saturation_is_seen_in_the_cross_entropy_only(base, examine):
    reading = examine(GradientShare(), Scaled(base))
    assert reading.passed is False
    assert reading.statistics["CrossEntropy.zero_examples"] > 0.9
    assert reading.statistics["MarginLoss.zero_examples"] == 0


def test_non_finite_elements_are_counted(base, examine):
    class RootOfZero(nn.Module):
        def forward(self, x):
            return base(torch.sqrt(x * x))

    reading = examine(GradientShare(), RootOfZero())
    assert reading.passed is False
    assert 0 < reading.statistics["MarginLoss.non_finite_elements"] < 1
    assert "not finite" in reading.explanation


def test_norms_and_histogram_of_a_known_gradient(examine):
    """Margin loss 2 * sum(x[first half]) between two classes: half of the elements are 2, the other half 0."""

    class HalfSum(nn.Module):
        def forward(self, x):
            total = x.flatten(1)[:, :32].sum(1)
            return torch.stack([-total, total] + [torch.full_like(total, -1e3)] * 8, 1)

    class FirstClass(GradientShare):
        def examine(self, classifier, x, y, threat, *, generator):
            return super().examine(classifier, x, y * 0, threat, generator=generator)

    reading = examine(FirstClass(objectives=(margin_loss,)), HalfSum())
    assert reading.statistics["MarginLoss.zero_elements"] == 0.5
    assert reading.statistics["MarginLoss.norm_50"] == pytest.approx(2 * math.sqrt(32))
    assert [(edge, share) for edge, share in reading.curve if share] == [(0.0, 0.5)]
