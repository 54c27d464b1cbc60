"""Balls that shrink: down to a closed form, to exact radii, and never farther."""

import math

import pytest
import torch
from tests.bounds.networks import needle, random_network
from torch import nn

from unmask.bounds import exact_radius
from unmask.bounds.found import Found
from unmask.bounds.shrinking import by_branches, by_descent
from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.threat import L1, L2, Linf


def found_at(network, x, y, points, threat):
    door = Classifier(network, deterministic=True)
    found = Found(door, x, y, threat, Streams.seeded(0, torch.arange(len(x))))
    found.keep(torch.arange(len(x)), points)
    return found


@pytest.mark.parametrize(
    ("threat", "dual"), [(Linf(epsilon=1.0), 1), (L2(epsilon=9.0), 2), (L1(epsilon=72.0), math.inf)]
)
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_descents_end_at_the_closed_form_of_a_linear_model(threat, dual, goal):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).requires_grad_(False)
    x = 0.45 + 0.1 * torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    logits = network(x).double()
    y, weight = logits.argmax(1), (network[1].weight[0] - network[1].weight[1]).double()
    exact = (logits[:, 0] - logits[:, 1]).abs() / torch.linalg.vector_norm(weight, dual)
    away = weight.sign().float() * (2 * y[:, None] - 1)
    far = (x + 0.3 * away.reshape(x.shape)).clamp(0, 1)
    assert (network(far).argmax(1) != y).all()
    threat = type(threat)(epsilon=threat.epsilon, goal=goal)
    found = found_at(network, x, y if goal == "untargeted" else 1 - y, far, threat)
    by_descent(found, trials=60)
    assert (found.distance >= exact * (1 - 1e-4)).all()
    assert (found.distance <= exact * 1.01).all()


def test_branches_end_at_the_exact_radius_where_descents_stay():
    network, x, y = needle(8), torch.full((1, 1, 2, 4), 0.5), torch.tensor([0])
    diagonal = torch.tensor([1.0, -1.0]).repeat(4).reshape(x.shape)
    found = found_at(network, x, y, x + 0.4 * diagonal, Linf(epsilon=1.0))
    by_branches(found)
    assert 0.1066 <= float(found.distance) <= 0.1066 * 1.005
    network = random_network("mlp_relu", 1, 1.5)
    x = torch.rand(4, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    y = network(x).argmax(1)
    known = torch.tensor([e.radius for e in exact_radius(network, x, y, Linf(epsilon=0.25))]).double()
    x, y, known = (v[known.isfinite()] for v in (x, y, known))
    points = torch.rand(500, 2, 6, 6, generator=torch.Generator().manual_seed(2)).round()
    far = torch.stack([points[network(points).argmax(1) != label][0] for label in y])
    found = found_at(network, x, y, far, Linf(epsilon=1.0))
    by_branches(found)
    ratio = found.distance / known
    assert (ratio >= 1 - 1e-4).all()
    assert (ratio <= 1.005).all()


def test_nothing_is_moved_where_nothing_is_known():
    network = random_network("mlp_tanh", 0)  # no signs to branch over
    x = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    found = found_at(network, x, y, x, Linf(epsilon=1.0))  # no example
    by_descent(found)
    by_branches(found)
    assert found.distance.isinf().all()
    assert torch.equal(found.x_adv, x)
