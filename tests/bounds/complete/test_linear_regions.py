"""Walks through linear regions: never farther, still adversarial, and near the exact optimum."""

import pytest
import torch
from tests.bounds.networks import random_network
from torch import nn

from unmask.attacks import FAB
from unmask.bounds import exact_radius, walk_regions
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.threat import L2, Linf

BOX = Linf(epsilon=1.0)


def images(count, seed=0):
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def test_a_far_start_ends_at_the_exact_distance_of_a_linear_model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).requires_grad_(False)
    x = 0.4 + 0.2 * images(3)
    y = network(x).argmax(1)
    weight = network[1].weight[0] - network[1].weight[1]
    logits = network(x).double()
    exact = (logits[:, 0] - logits[:, 1]).abs() / weight.abs().double().sum()
    far = (x - 0.39 * (weight * (1 - 2 * y[:, None])).sign().reshape(x.shape)).clamp(0, 1)
    assert (network(far).argmax(1) != y).all()
    found = walk_regions(network, x, y, far, BOX)
    assert (network(found).argmax(1) != y).all()
    torch.testing.assert_close(BOX.distance(found, x), exact, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("kind", "programs"), [("mlp_relu", 60), ("residual_relu", 6)])
def test_nearer_than_fab_and_no_nearer_than_the_optimum(kind, programs):
    network = random_network(kind, 4)
    x = images(3, 4)
    y = network(x).argmax(1)
    door = Classifier(network, deterministic=True)
    attack = FAB(steps=8, early_stop=False)
    start = attack.run(door, x, y, BOX, generator=torch.Generator().manual_seed(0))
    broken = network(start).argmax(1) != y
    x, y, start = x[broken], y[broken], start[broken]
    assert len(x) >= 2
    found = walk_regions(network, x, y, start, BOX, programs=programs)
    before, after = BOX.distance(start, x), BOX.distance(found, x)
    assert (network(found).argmax(1) != y).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert (after <= before).all()
    assert (after < before * 0.9999).any()
    if kind == "mlp_relu":  # the program takes minutes on the other one
        for i, exact in enumerate(exact_radius(network, x, y, BOX)):
            assert exact.lower_bound * (1 - 1e-5) <= after[i] <= exact.radius * 1.05


def test_what_is_not_adversarial_stays():
    network = random_network("mlp_relu", 4)
    x = images(2, 4)
    assert torch.equal(walk_regions(network, x, network(x).argmax(1), x, BOX), x)


def test_unsupported():
    x, y = images(1), torch.tensor([0])
    with pytest.raises(Unsupported, match="ReLU only"):
        walk_regions(random_network("mlp_tanh", 0), x, y, x, BOX)
    with pytest.raises(Unsupported, match="for linf"):
        walk_regions(random_network("mlp_relu", 0), x, y, x, L2(epsilon=1.0))
