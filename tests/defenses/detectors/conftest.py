"""A small network of digits, trained in a second, and digits that it has not seen."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from unmask.data import load


@dataclass
class Small:
    network: nn.Sequential
    x: Tensor
    y: Tensor
    held_out: Tensor
    test_x: Tensor
    test_y: Tensor


@pytest.fixture(scope="package")
def small() -> Small:
    train, test = load("digits", split="train"), load("digits", split="test")
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
        )
        optimizer = torch.optim.Adam(network.parameters(), 3e-3)
        for _ in range(30):
            for part in torch.randperm(len(train)).split(128):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(train.x[part]), train.y[part]).backward()
                optimizer.step()
    network.eval().requires_grad_(False)
    right = (network(test.x).argmax(1) == test.y).nonzero()[:, 0]
    return Small(
        network, train.x[:900], train.y[:900], train.x[900:], test.x[right[:120]], test.y[right[:120]]
    )
