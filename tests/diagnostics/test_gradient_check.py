import pytest
import torch
from torch import nn

from unmask.diagnostics import GradientCheck
from unmask.gradients import Estimate, GradientEstimator
from unmask.objectives import cross_entropy
from unmask.threat import L1, L2, Linf

from .conftest import LiesOffTheGrid, Noisy, Quantised, Scaled


class Straight(GradientEstimator):
    """The gradient of the network without its first operation: what BPDA by identity gives."""

    def estimate(self, classifier, objective, x, y, *, generator):
        from unmask.gradients import Exact

        undefended = classifier.replace(network=classifier.network.base)
        est = Exact().estimate(undefended, objective, x, y, generator=generator)
        return Estimate(est.value, est.grad, est.outputs)


@pytest.mark.parametrize("norm", [Linf(epsilon=0.1), L2(epsilon=0.5), L1(epsilon=2.0)], ids=lambda t: t.norm)
def test_honest_networks_agree_with_their_gradient(norm, honest, examine):
    reading = examine(GradientCheck(), honest, threat=norm)
    assert reading.passed, reading
    assert reading.value > 0.95


def test_a_linear_network_agrees_at_every_size(examine):
    torch.manual_seed(0)
    reading = examine(GradientCheck(), nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    for size in ("0.001", "0.01", "0.1"):  # at 1 the largest other class may change
        assert reading.statistics[f"cosine_at_{size}"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("epsilon", [0.4 / 255, 0.3])
def test_honest_networks_agree_for_tiny_and_large_balls(epsilon, honest, examine):
    assert examine(GradientCheck(), honest, threat=Linf(epsilon=epsilon)).passed
    assert examine(GradientCheck(objective=cross_entropy), honest, threat=Linf(epsilon=epsilon)).passed


def test_a_zero_gradient_of_a_staircase_is_no_agreement(base, examine):
    reading = examine(GradientCheck(), Quantised(base))
    assert reading.passed is False
    assert reading.value == 0


def test_a_straight_through_gradient_agrees_again(base, examine):
    reading = examine(GradientCheck(gradient=Straight(), decides_at=1.0), Quantised(base))
    exact = examine(GradientCheck(decides_at=1.0), Quantised(base))
    assert reading.statistics["cosine_at_1"] > 0.4 > exact.statistics["cosine_at_1"]


def test_a_reversed_gradient_is_negative(base, examine):
    reading = examine(GradientCheck(), LiesOffTheGrid(base, on_the_grid=-1.0))
    assert reading.passed is False
    assert reading.value < -0.9


def test_noise_alone_does_not_fail(base, examine):
    assert examine(GradientCheck(), Noisy(base), deterministic=False).passed


def test_scale_alone_does_not_fail(base, examine):
    assert examine(GradientCheck(), Scaled(base)).passed


def test_a_non_finite_gradient_counts_as_disagreement(base, examine):
    class RootOfZero(nn.Module):
        def forward(self, x):
            return base(torch.sqrt(x * x))  # the digits' background is exactly 0

    reading = examine(GradientCheck(), RootOfZero())
    assert reading.passed is False
    assert reading.statistics["non_finite_examples"] == 1


def test_a_constant_network_says_nothing(examine):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.arange(10.0).expand(len(x), 10) + 0 * x.sum()

    reading = examine(GradientCheck(), Constant())
    assert reading.passed is None
    assert reading.value is None
    assert examine(GradientCheck(), Constant(), threat=Linf(epsilon=0.0)).passed is None
