"""Danskin's theorem beside closed forms, with one maximiser and with several."""

import math

import pytest
import torch
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.threat import Linf
from unmask.training import danskin

EPSILON = 0.1


def seeded(n=0):
    return torch.Generator().manual_seed(n)


class Parabola(nn.Module):
    """Logits 0 and a (x - 1/2) + b (x - 1/2)^2 of one pixel: at a = 0 both ends of the ball are maximisers."""

    def __init__(self, a, b=3.0):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor([a, b], dtype=torch.float64))

    def forward(self, x):
        off = x.flatten(1) - 0.5
        z = self.weights[0] * off + self.weights[1] * off**2
        return torch.cat([torch.zeros_like(z), z], 1)


ENDS = torch.tensor([0.5 - EPSILON, 0.5 + EPSILON], dtype=torch.float64).view(2, 1, 1)
HALF, ZERO = torch.full((1, 1), 0.5, dtype=torch.float64), torch.tensor([0])


def test_with_two_maximisers_the_slope_is_the_larger_of_theirs():
    found = danskin(Parabola(0.0), HALF, ZERO, lambda _: ENDS, directions=16, generator=seeded())
    assert found.maximisers.tolist() == [2]
    assert found.holds(tolerance=1e-3)
    # Closed form along the unit vector (u, v): sigmoid(b eps^2) (eps |u| + eps^2 v).
    again, sigmoid = seeded(), 1 / (1 + math.exp(-3 * EPSILON**2))
    for predicted in found.predicted.tolist():
        u, v = (lambda d: d / d.norm())(torch.randn(2, generator=again, dtype=torch.float64)).tolist()
        assert predicted == pytest.approx(sigmoid * (EPSILON * abs(u) + EPSILON**2 * v), rel=1e-5)
    # One maximiser's gradient has the wrong sign along every second direction.
    assert (found.at_one - found.measured).abs().max() > EPSILON / 2


def test_with_one_maximiser_its_gradient_is_enough():
    found = danskin(Parabola(0.5), HALF, ZERO, lambda _: ENDS, directions=16, generator=seeded())
    assert found.maximisers.tolist() == [1]
    assert found.holds(tolerance=1e-3)
    assert torch.equal(found.predicted, found.at_one)


def test_a_candidate_that_comes_twice_is_one_maximiser():
    twice = torch.cat([ENDS[1:], ENDS[1:] + 1e-7, ENDS[:1]])
    assert danskin(Parabola(0.5), HALF, ZERO, lambda _: twice, directions=1).maximisers.tolist() == [1]


def smooth():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 12), nn.Tanh(), nn.Linear(12, 3)).double()
    x = 0.3 + 0.4 * torch.rand(5, 1, 3, 3, generator=seeded(), dtype=torch.float64)
    return network, x, torch.tensor([0, 1, 2, 0, 1])


def by_attack(attack, x, y):
    def maximise(network):
        points = attack.run(Classifier(network), x, y, Linf(epsilon=EPSILON), generator=seeded(1))
        return points[None]

    return maximise


def test_an_attack_is_put_to_it():
    network, x, y = smooth()
    before = [p.clone() for p in network.parameters()]
    strong = PGD(steps=60, rel_step_size=0.05, early_stop=False)
    found = danskin(network, x, y, by_attack(strong, x, y), generator=seeded())
    assert found.holds()
    assert found.maximisers.tolist() == [1] * 5
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


def test_an_attack_that_does_not_maximise_is_told():
    network, x, y = smooth()
    calls = iter(range(100))

    def wanders(_):
        """Anywhere in the ball, and elsewhere next time."""
        noise = torch.rand(x.shape, generator=seeded(next(calls)), dtype=x.dtype)
        return (x + EPSILON * (2 * noise - 1))[None]

    assert not danskin(network, x, y, wanders, generator=seeded()).holds()


def test_what_has_no_weights_or_other_than_float64_is_refused():
    for network in (nn.Flatten(), nn.Sequential(nn.Flatten(), nn.Linear(1, 2))):
        with pytest.raises(UnusableInput, match="float64"):
            danskin(network, HALF, ZERO, lambda _: ENDS)
