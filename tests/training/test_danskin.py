"""Danskin's theorem: the gradient at the inner maximiser is the gradient of the robust loss.

The robust loss comes from a closed form or from enumeration, its gradient from finite differences; the recipe's own
gradient is read off one step of its optimiser.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.attacks import FGSM, PGD
from unmask.data import Data
from unmask.threat import Linf
from unmask.training import AdversarialTraining

EPSILON = 0.1
RATE = 1e-3  # small enough to divide by, in float64


def flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def put(network, vector):
    torch.nn.utils.vector_to_parameters(vector, network.parameters())


def gradient_of_recipe(recipe, network, x, y):
    """What one step of the recipe moved the weights by, over its learning rate."""
    before = flat(network)
    data = Data(x, y, "toy", "train", torch.arange(len(x)))
    recipe.fit(network, data, Linf(epsilon=EPSILON), generator=torch.Generator().manual_seed(0))
    gradient = (before - flat(network)) / recipe.rate(0, 1)
    put(network, before)
    return gradient


def finite_difference(robust_loss, network, h=1e-5):
    here, slopes = flat(network), []
    for n in range(len(here)):
        values = []
        for sign in (1, -1):
            there = here.clone()
            there[n] += sign * h
            put(network, there)
            values.append(robust_loss(network))
        slopes.append((values[0] - values[1]) / (2 * h))
    put(network, here)
    return torch.stack(slopes).detach()


def one_step(attack, batch):
    return AdversarialTraining(
        attack=attack,
        epochs=1,
        batch_size=batch,
        learning_rate=RATE,
        momentum=0,
        weight_decay=0,
        average=0,
        warmup=1,
        pad=0,
        mirror=False,
    )


def toy(batch, pixels, seed):
    g = torch.Generator().manual_seed(seed)
    x = 0.2 + 0.6 * torch.rand(batch, 1, 1, pixels, generator=g, dtype=torch.float64)  # the box never binds
    return x, torch.randint(2, (batch,), generator=g)


def test_on_a_linear_network_where_the_maximum_is_closed_form():
    torch.manual_seed(0)
    x, y = toy(16, 5, seed=1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(5, 2)).double()

    def robust_loss(network):
        w = network[1].weight
        margin = (network(x)[:, 0] - network(x)[:, 1]) * (1 - 2 * y)
        return F.softplus(-(margin - EPSILON * (w[0] - w[1]).abs().sum())).mean()

    truth = finite_difference(robust_loss, network)
    found = gradient_of_recipe(one_step(FGSM(), 16), network, x, y)
    assert torch.allclose(found, truth, atol=1e-7)
    elsewhere = gradient_of_recipe(one_step(FGSM(rel_step_size=0.0), 16), network, x, y)  # at x itself
    assert float((elsewhere - truth).norm() / truth.norm()) > 0.05


@pytest.mark.parametrize("seed", [0, 1])
def test_on_a_smooth_network_where_the_maximum_is_enumerated(seed):
    torch.manual_seed(seed)
    x, y = toy(4, 2, seed=seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    for p in network.parameters():
        p.data *= 3  # curved, so that the maximum need not be a corner
    side = torch.linspace(-EPSILON, EPSILON, 161, dtype=torch.float64)
    grid = torch.cartesian_prod(side, side).view(-1, 1, 1, 1, 2)

    def robust_loss(network):
        points = (x + grid).flatten(0, 1)
        loss = F.cross_entropy(network(points), y.repeat(len(grid)), reduction="none")
        return loss.view(len(grid), len(x)).amax(0).mean()

    attack = PGD(steps=200, rel_step_size=0.02, restarts=4, early_stop=False)
    truth = finite_difference(robust_loss, network)
    found = gradient_of_recipe(one_step(attack, 4), network, x, y)
    # The grid is 2 * 0.1 / 160 wide, so neither maximiser is exact.
    assert float((found - truth).norm() / truth.norm()) < 0.01
    elsewhere = gradient_of_recipe(one_step(FGSM(rel_step_size=0.0), 4), network, x, y)
    assert float((elsewhere - truth).norm() / truth.norm()) > 0.05
