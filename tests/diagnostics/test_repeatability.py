import pytest
import torch
from torch import nn

from unmask.diagnostics import Repeatability

from .conftest import Noisy, Quantised


def test_honest_networks_repeat(honest, examine):
    reading = examine(Repeatability(), honest, deterministic=False)
    assert reading.passed
    assert reading.statistics["gradient_cosine"] == pytest.approx(1)
    assert reading.statistics["noise_to_signal"] == 0


def test_noise_is_seen_in_predictions_and_gradients(base, examine):
    reading = examine(Repeatability(), Noisy(base, 0.5), deterministic=False)
    assert reading.passed is False
    assert reading.value == 1
    assert reading.statistics["prediction_changes"] > 0.3
    assert reading.statistics["gradient_cosine"] < 0.9


def test_noise_that_never_changes_a_prediction_is_still_noise(base, examine):
    reading = examine(Repeatability(), Noisy(base, 1e-3), deterministic=False)
    assert reading.passed is False
    assert reading.statistics["prediction_changes"] == 0


def test_noise_to_signal_has_the_known_value(examine):
    """Logits (0, w·x), w = 1 + 2 noise: the gradient of the margin loss is w, its noise to signal ratio 2."""

    class RandomSlope(nn.Module):
        def forward(self, x):
            slope = 1 + 2 * torch.randn(len(x), 64)
            return torch.stack([torch.zeros(len(x)), (x.flatten(1) * slope).sum(1)], 1)

    class Binary(Repeatability):
        def examine(self, classifier, x, y, threat, *, generator):
            return super().examine(classifier, x, y * 0, threat, generator=generator)

    reading = examine(Binary(draws=32), RandomSlope(), deterministic=False)
    assert reading.statistics["noise_to_signal"] == pytest.approx(2.0, rel=0.1)
    assert reading.statistics["gradient_cosine"] == pytest.approx(1 / (1 + 4), rel=0.15)


def test_a_zero_gradient_is_not_noise(base, examine):
    assert examine(Repeatability(), Quantised(base)).passed
