"""Networks with a known answer, and a small trained one for comparison with other people's attacks."""

import math
from dataclasses import dataclass

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from unmask.classifier import Classifier, seeded
from unmask.threat import BALLS, FewPixels, ThreatModel, threat_model

SHAPE = (2, 6, 6)
# Of every example below to the decision boundary; a count is enough where one less is not.
DISTANCE = {"linf": 0.03, "l2": 0.2, "l1": 0.25, "l0": 2, "l0-elements": 2, "patch": 2}


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


def reach(x: torch.Tensor, w: torch.Tensor, sign: torch.Tensor, threat: FewPixels) -> torch.Tensor:
    """By how much `sign * (w·x)` can fall: the best allowed set, everything in it at the better end of the box."""
    slope = sign[:, None] * w
    worth = (slope.abs() * torch.where(slope > 0, x, 1 - x)).reshape(-1, *SHAPE)
    return (threat.support(threat.units(worth)) * worth).flatten(1).sum(1)


def between_budgets(x, w, offset, sign, norm: str) -> torch.Tensor:
    """`x` moved along `w` to where the budget suffices to cross the hyperplane and one less does not."""
    enough, short = (threat_of(norm, DISTANCE[norm] - less) for less in (0, 1))
    low, high = x.new_full((len(x),), -0.5), x.new_full((len(x),), 0.5)
    for _ in range(60):
        middle = (low + high) / 2
        point = x + (sign * middle)[:, None] * w
        needed = (reach(point, w, sign, enough) + reach(point, w, sign, short)) / 2
        far = sign * (point @ w - offset) > needed
        low, high = torch.where(far, low, middle), torch.where(far, middle, high)
    return point


def linear_problem(norm: str, examples: int = 8, dtype: torch.dtype = torch.float32) -> LinearProblem:
    torch_rng = torch.Generator().manual_seed(7)
    dims = math.prod(SHAPE)
    w = torch.randn(dims, generator=torch_rng, dtype=torch.float64)
    x = 0.35 + 0.3 * torch.rand(examples, dims, generator=torch_rng, dtype=torch.float64)
    y = torch.arange(examples) % 2
    sign = 1.0 - 2.0 * y  # class 0 lies where w·x > offset
    offset = (w * 0.5).sum()
    if norm in BALLS:
        gap = DISTANCE[norm] * torch.linalg.vector_norm(w, BALLS[norm].dual_p)
        x += ((sign * gap + offset - x @ w) / (w @ w))[:, None] * w
    else:
        x = between_budgets(x, w, offset, sign, norm)
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
    """Budgets that count are rounded down: a little less than one that suffices does not."""
    return threat_model(norm, epsilon if norm in BALLS else math.floor(epsilon), **fields)


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
