"""A curved network in float64 whose every query is written down, so that an attack can be followed step by step.

The references in the tests beside this file are written from the papers' boxes, one example at a time and slowly; they
share nothing with the package but the network and the random numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.types import Outputs

SIDE = 4
EXAMPLES = 6
CLASSES = 4


class Asked(Classifier):
    """Refuses a query about nobody, at which many networks fail, and one without its examples' random numbers."""

    def __call__(self, x: Tensor, *, generator: torch.Generator | Streams) -> Outputs:
        assert isinstance(generator, Streams), "the streams were lost"
        assert len(x), "nobody is asked about"
        assert len(x) % len(generator) == 0, (len(x), len(generator))
        return super().__call__(x, generator=generator)


@dataclass
class Curved:
    """The network, examples that it gets right, and the points at which it was asked, in their order."""

    layers: nn.Module
    x: Tensor
    y: Tensor
    asked: list[Tensor] = field(default_factory=list)

    def classifier(self) -> Classifier:
        def network(x: Tensor) -> Tensor:
            self.asked.append(x.detach().clone())
            return self.layers(x)

        return Asked(network, deterministic=True)

    def streams(self) -> Streams:
        return Streams.seeded(3, torch.arange(len(self.x)))

    def logits(self, point: Tensor) -> Tensor:
        """`[classes]` of one image."""
        return self.layers(point[None])[0]


def curved(channels: int = 1, sharpness: float = 6.0, seed: int = 1) -> Curved:
    """`sharpness` says how much the slope turns within a ball: at 6 an ascent with full steps overshoots often."""
    rng = torch.Generator().manual_seed(seed)
    dims = channels * SIDE * SIDE

    def linear(inputs: int, outputs: int, scale: float) -> nn.Linear:
        layer = nn.Linear(inputs, outputs, dtype=torch.float64)
        with torch.no_grad():
            layer.weight.copy_(scale / inputs**0.5 * torch.randn(outputs, inputs, generator=rng).double())
            layer.bias.copy_(torch.randn(outputs, generator=rng).double())
        return layer

    layers = nn.Sequential(
        nn.Flatten(),
        linear(dims, 12, sharpness),
        nn.Tanh(),
        linear(12, 12, 2.0),
        nn.Softplus(),
        linear(12, CLASSES, 2.0),
    ).requires_grad_(False)
    x = torch.rand(EXAMPLES, channels, SIDE, SIDE, generator=rng).double()
    return Curved(layers, x, layers(x).argmax(1))


def value_and_slope(objective: Callable[[Tensor], Tensor], point: Tensor) -> tuple[float, Tensor]:
    """An objective of one image, and its gradient."""
    point = point.clone().requires_grad_()
    value = objective(point)
    (slope,) = torch.autograd.grad(value, point)
    return float(value.detach()), slope


def project(point: Tensor, x: Tensor, norm: str, epsilon: float) -> Tensor:
    """Nearest point of the ball, then of the box (Linf, L2); of both at once, by trying every threshold (L1)."""
    delta = point - x
    if norm == "linf":
        return (x + delta.clamp(-epsilon, epsilon)).clamp(0, 1)
    if norm == "l2":
        return (x + delta * min(1.0, epsilon / max(float(delta.norm()), 1e-300))).clamp(0, 1)
    room = torch.where(delta >= 0, 1 - x, x)
    size = delta.abs()
    if float(torch.minimum(size, room).sum()) <= epsilon:
        return (x + delta).clamp(0, 1)
    # The sum of min(max(size - t, 0), room) falls in t along straight lines between these corners.
    corners = torch.cat(
        [torch.zeros(1).double(), size.flatten(), (size - room).clamp_min(0).flatten()]
    ).unique()
    sums = torch.stack([torch.minimum((size - t).clamp_min(0), room).sum() for t in corners])
    last = int((sums > epsilon).nonzero()[-1])
    slope = (sums[last + 1] - sums[last]) / (corners[last + 1] - corners[last])
    t = corners[last] + (epsilon - sums[last]) / slope
    kept = torch.minimum((size - t).clamp_min(0), room)
    return torch.where(kept > 1e-12, x + delta.sign() * kept, x).clamp(0, 1)


def follows(asked: list[Tensor], example: int, expected: list[Tensor], tolerance: float = 1e-9) -> None:
    """Every query of an example is where the reference says."""
    assert len(asked) == len(expected), (len(asked), len(expected))
    for step, (ours, theirs) in enumerate(zip(asked, expected, strict=True)):
        distance = float((ours[example] - theirs).abs().max())
        assert distance <= tolerance, f"query {step} of example {example} is {distance:.3g} away"


def leaves_once_it_fools(asked: list[Tensor], walks: dict[int, Any], found: Tensor) -> None:
    """Every query is about those that have not fooled yet, at their own steps; some do, and some never.

    **Arguments**
    - `walks`: by example; `path`, the points of its steps, `fools`, the first of them that does, and `best`, what is
      kept of one that never does.
    - `found`: what the attack returned.
    """
    left = list(walks)
    for step, points in enumerate(asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], walks[n].path[step], rtol=0, atol=1e-9)
            if walks[n].fools == step:
                torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                left.remove(n)
    assert 0 < len(left) < len(walks)
    for n in left:
        torch.testing.assert_close(found[n], walks[n].best, rtol=0, atol=1e-6)
