"""What the tests of the recipes share: a small network, a few digits, and no randomness that is not asked for."""

import pytest
import torch
from torch import nn

from unmask.data import load
from unmask.zoo import MLP

PLAIN = {"epochs": 2, "batch_size": 32, "learning_rate": 0.1, "pad": 0, "mirror": False}


def small_network(seed=0):
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return MLP((64, 16, 10))


def seed(number=0):
    return torch.Generator().manual_seed(number)


def flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def descent_by_hand(network, gradients, rate):
    """One step of plain gradient descent."""
    with torch.no_grad():
        for p, g in zip(network.parameters(), gradients, strict=True):
            p -= rate * g


def slope(network, x, y):
    """Gradient of the mean cross-entropy with respect to the weights, then with respect to `x`."""
    x = x.detach().requires_grad_()
    loss = nn.functional.cross_entropy(network(x), y)
    *weights, image = torch.autograd.grad(loss, [*network.parameters(), x])
    return weights, image


@pytest.fixture(scope="session")
def few():
    return load("digits", split="train", examples=96)
