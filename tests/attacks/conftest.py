"""Networks with a known answer, and a small trained one for comparison with other people's attacks."""

import math
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from unmask.classifier import Classifier, seeded
from unmask.threat import BALLS, ThreatModel

SHAPE = (2, 6, 6)
DISTANCE = {"linf": 0.03, "l2": 0.2, "l1": 0.25}  # of every example below to the decision boundary


@dataclass
class LinearProblem:
    """Two classes apart by a hyperplane at one known distance from every example, and three that never win.

    For logits `Wx + b` the smallest perturbation that makes class `t` win over `y` has p-norm
    `margin / ||w_t - w_y||_q`, `1/p + 1/q = 1`; the data lie so far inside the box that it takes no part.
    """

    network: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    distance: float

    def classifier(self) -> Classifier:
        return Classifier(self.network, surrogate=self.network, deterministic=True)


def linear_problem(norm: str, examples: int = 8, dtype: torch.dtype = torch.float32) -> LinearProblem:
    torch_rng = torch.Generator().manual_seed(7)
    dims = math.prod(SHAPE)
    w = torch.randn(dims, generator=torch_rng, dtype=torch.float64)
    x = 0.35 + 0.3 * torch.rand(examples, dims, generator=torch_rng, dtype=torch.float64)
    y = torch.arange(examples) % 2
    sign = 1.0 - 2.0 * y  # class 0 lies where w·x > offset
    offset = (w * 0.5).sum()
    gap = DISTANCE[norm] * torch.linalg.vector_norm(w, BALLS[norm].dual_p)
    x += ((sign * gap + offset - x @ w) / (w @ w))[:, None] * w
    weight = torch.stack(
        [w / 2, -w / 2, *(0.01 * torch.randn(3, dims, generator=torch_rng, dtype=torch.float64))]
    )
    bias = torch.tensor([-offset / 2, offset / 2, -30.0, -31.0, -32.0], dtype=torch.float64)
    linear = nn.Linear(dims, 5, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    network = nn.Sequential(nn.Flatten(), linear).to(dtype).eval()
    assert x.min() > 0.1
    assert x.max() < 0.9
    return LinearProblem(network, x.reshape(-1, *SHAPE).to(dtype), y, DISTANCE[norm])


def threat_of(norm: str, epsilon: float, **fields) -> ThreatModel:
    return BALLS[norm](epsilon=epsilon, **fields)


@dataclass
class Digits:
    network: nn.Module
    x: torch.Tensor
    y: torch.Tensor


@pytest.fixture(scope="session")
def digits() -> Digits:
    """A convolutional network, adversarially trained for a moment on scikit-learn's digits, and 64 test images."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(data.target)
    with seeded(0, torch.device("cpu")):
        network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 10),
        )  # fmt: skip
        optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
        for _ in range(12):
            for part in torch.randperm(1500).split(100):
                images = x[part] + 0.1 * torch.randn_like(x[part]).sign()
                images.requires_grad_()
                (grad,) = torch.autograd.grad(nn.functional.cross_entropy(network(images), y[part]), images)
                moved = (images + 0.06 * grad.sign()).clamp(0, 1).detach()
                optimiser.zero_grad()
                nn.functional.cross_entropy(network(moved), y[part]).backward()
                optimiser.step()
    network.eval().requires_grad_(False)
    x, y = x[1500:], y[1500:]
    right = (network(x).argmax(1) == y).nonzero()[:, 0][:64]
    return Digits(network, x[right], y[right])
