"""Exact radii against closed forms, brute force, and the two bounds around them."""

import math

import pytest
import torch
from tests.bounds.networks import planar_networks, random_network
from torch import nn

from unmask.attacks import PGD
from unmask.bounds import certified_radius
from unmask.bounds.complete.exact import exact_radius
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.objectives import margin_loss
from unmask.threat import L1, L2, Linf


def images(count, seed=0):
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threat", [Linf, L1])
def test_linear_model(threat):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).requires_grad_(False)
    x = 0.4 + 0.2 * images(4)
    logits = network(x).double()
    y = logits.argmax(1)
    weight = network[1].weight.double()
    slope = torch.linalg.vector_norm(weight[y][:, None] - weight, threat.dual_p, dim=2)
    ratio = (logits.gather(1, y[:, None]) - logits) / slope
    expected, target = ratio.masked_fill(ratio.isnan(), torch.inf).min(1)
    near = expected < 0.4  # so that the box does not bind
    assert near.sum() >= 1
    x, y, expected, target = x[near], y[near], expected[near], target[near]
    for i, found in enumerate(exact_radius(network, x, y, threat(epsilon=0.4))):
        assert found.radius == pytest.approx(float(expected[i]), rel=1.1e-3)
        assert found.lower_bound <= float(expected[i]) * (1 + 1e-6)
        assert found.gap <= 1.1e-3
        assert found.target == target[i]
        assert abs(found.violation) < 1e-4


def test_brute_force_in_two_dimensions():
    solved = 0
    for network, x, y, wrong in planar_networks():
        for threat in (Linf, L1):
            distance = threat(epsilon=2.0).distance(wrong, x.expand(len(wrong), -1, -1, -1))
            brute = float(distance.min()) if len(wrong) else math.inf
            found = exact_radius(network, x, y, threat(epsilon=2.0))[0]
            assert brute - 0.005 <= found.radius <= 1.001 * brute + 1e-5 or found.radius == brute
            solved += math.isfinite(brute)
    assert solved >= 6


def test_between_certificate_and_attack():
    network = random_network("residual_relu", 1, gain=1.0)
    x = images(3, 1)
    y = network(x).argmax(1)
    threat = Linf(epsilon=0.3)
    low = certified_radius(network, x, y, threat, halvings=6)
    found = exact_radius(network, x, y, threat)
    for i, exact in enumerate(found):
        assert exact.radius >= float(low[i]) - 1e-5
        if not math.isfinite(exact.radius):
            continue
        door = Classifier(network, deterministic=True)
        short = Linf(epsilon=exact.lower_bound * 0.9999)
        attack = PGD(objective=margin_loss)
        point = attack.run(
            door, x[i : i + 1], y[i : i + 1], short, generator=torch.Generator().manual_seed(0)
        )
        assert network(point).argmax(1) == y[i]
    assert any(math.isfinite(e.radius) for e in found)


def test_a_known_distance_shortens_the_search_and_changes_nothing():
    network = random_network("mlp_relu", 4)
    x = images(3, 4)
    y = network(x).argmax(1)
    free = exact_radius(network, x, y, Linf(epsilon=0.5))
    radii = torch.tensor([e.radius for e in free], dtype=torch.float64)
    assert radii.isfinite().all()
    for upper in (radii, 1.05 * radii):
        told = exact_radius(network, x, y, Linf(epsilon=0.5), upper=upper)
        assert [e.radius for e in told] == pytest.approx(radii.tolist(), rel=2e-3)


def test_nothing_within_reach_and_wrong_predictions():
    network = random_network("mlp_relu", 4)
    x = images(2, 4)
    y = network(x).argmax(1)
    for found in exact_radius(network, x, y, Linf(epsilon=1e-5)):
        assert (found.radius, found.lower_bound, found.gap, found.target) == (math.inf, 1e-5, 0.0, -1)
    wrong = network(x).argmin(1)
    assert all(e.radius == 0 for e in exact_radius(network, x, wrong, Linf(epsilon=0.1)))


def test_unsupported():
    x, y = images(1), torch.tensor([0])
    with pytest.raises(Unsupported, match="ReLU only"):
        exact_radius(random_network("mlp_tanh", 0), x, y, Linf(epsilon=0.1))
    with pytest.raises(Unsupported, match="linf and l1"):
        exact_radius(random_network("mlp_relu", 0), x, y, L2(epsilon=0.1))
