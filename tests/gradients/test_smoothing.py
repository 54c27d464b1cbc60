import math

import pytest
import torch
from tests.gradients.models import Quadratic, batch, cosine

from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import Exact, FiniteDifference, Smoothing
from unmask.objectives import margin_loss


def estimate(estimator, network, x, y):
    return estimator.estimate(
        Classifier(network), margin_loss, x, y, generator=torch.Generator().manual_seed(0)
    )


def test_smoothing_a_quadratic_leaves_its_gradient():
    network = Quadratic()
    x, y = batch(4)
    est = estimate(Smoothing(sigma=0.1, draws=400), network, x, y)
    # each entry deviates by sigma |row of A| / sqrt(draws)
    allowed = 4 * 0.1 * float(network.a.detach().norm(dim=1).max()) / math.sqrt(400)
    assert float((est.grad - network.truth(x)).abs().max()) < allowed
    torch.testing.assert_close(est.outputs.logits, network(x).detach())
    assert torch.equal(est.value, est.outputs.logits[:, 1])


def test_ripples_are_damped_by_the_gaussians_characteristic_function():
    """f(x) = sum of x + sin(k x) / k: the smoothed slope is 1 + exp(-(k sigma)^2 / 2) cos(k x)."""
    k, sigma = 40.0, 0.05

    def network(t):
        flat = t.flatten(1)
        value = (flat + torch.sin(k * flat) / k).sum(1)
        return torch.stack([torch.zeros_like(value), value], 1)

    x, y = batch(3)
    est = estimate(Smoothing(sigma=sigma, draws=500), network, x, y)
    truth = 1 + math.exp(-((k * sigma) ** 2) / 2) * torch.cos(k * x)
    assert float((est.grad - truth).abs().max()) < 5 * 0.71 / math.sqrt(500)
    assert float((estimate(Exact(), network, x, y).grad - truth).abs().max()) > 0.7


def test_no_noise_is_the_exact_gradient():
    network = Quadratic()
    x, y = batch(3)
    torch.testing.assert_close(
        estimate(Smoothing(sigma=0.0, draws=2), network, x, y).grad, estimate(Exact(), network, x, y).grad
    )


def test_composes_with_finite_differences():
    network = Quadratic()
    x, y = batch(3)
    est = estimate(Smoothing(FiniteDifference("coordinates"), sigma=0.01, draws=2), network, x, y)
    assert float(cosine(est.grad, network.truth(x)).min()) > 0.99


def test_bad_fields_are_named():
    with pytest.raises(UnusableInput, match="draws=0"):
        Smoothing(draws=0)
    with pytest.raises(UnusableInput, match="sigma=-1"):
        Smoothing(sigma=-1)
