"""Danskin's theorem, to be held against a network: the slope of the robust loss is that at its maximisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import UnusableInput
from ..state.exchanged import call_with

Weights = dict[str, Tensor]
# Points of the ball among which the maximum is looked for: `[candidates, batch, *dims]`, for the weights as they are.
Maximise = Callable[[nn.Module], Float[Tensor, "candidates batch *dims"]]


@dataclass(frozen=True, kw_only=True)
class Danskin:
    """Slopes of the robust loss along some directions of the weights: measured, and by the theorem.

    **Fields**
    - `measured`: `[directions]`, one-sided differences of the loss, maximised anew after the step.
    - `predicted`: `[directions]`, mean over the examples of the largest slope at a maximiser.
    - `at_one`: `[directions]`, the same with one maximiser an example: what a step of adversarial training follows.
    - `maximisers`: `[batch]`, how many different ones each example has among its candidates.
    """

    measured: Float[Tensor, " directions"]
    predicted: Float[Tensor, " directions"]
    at_one: Float[Tensor, " directions"]
    maximisers: Int[Tensor, " batch"]

    def holds(self, *, tolerance: float = 0.01) -> bool:
        """Whether measured and predicted slopes differ by at most that share of the longer of the two vectors.

        Where they do not, what was taken for the maximum is none: the attack is too weak, or its gradient masked.
        """
        size = torch.maximum(self.measured.norm(), self.predicted.norm())
        return bool((self.measured - self.predicted).norm() <= tolerance * size)


def danskin(
    network: nn.Module,
    x: Float[Tensor, "batch *dims"],
    y: Int[Tensor, " batch"],
    maximise: Maximise,
    *,
    directions: int = 8,
    step: float = 1e-5,
    tie: float = 1e-6,
    generator: torch.Generator | None = None,
) -> Danskin:
    """Compares the slope of the robust cross-entropy along random directions of the weights with Danskin's theorem.

    At a point where the loss has several maximisers the robust loss has a kink, and its slope in a direction is the
    largest of theirs: no gradient says so.

    **Arguments**
    - `network`: in evaluation mode, without randomness; in float64, or the differences drown in rounding.
    - `maximise`: is given the network and returns candidates, such as several restarts of an attack or a grid.
    - `directions`: unit vectors, normally distributed before they are scaled.
    - `step`: length of the difference.
    - `tie`: candidates whose losses differ by at most that share of the largest are maximisers; those nearer to each
      other than a ten-thousandth of their distance to `x` are one.

    **Cost**: `1 + directions` calls of `maximise`, and as many forwards of all candidates.
    **Source**: Danskin 1967; theorem 2.1 of the lecture notes; Madry et al. 2018, arXiv:1706.06083, appendix A.
    **Raises** `UnusableInput` for a network that is not in float64 or has no weights.

    >>> from torch import nn
    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2)).double()
    >>> corners = torch.cartesian_prod(torch.tensor([-0.1, 0.1]), torch.tensor([-0.1, 0.1])).double()
    >>> x, y = torch.rand(3, 2, dtype=torch.float64), torch.tensor([0, 1, 0])
    >>> danskin(network, x, y, lambda _: x + corners[:, None]).holds()
    True
    """
    weights = {name: p.detach() for name, p in network.named_parameters()}
    if not weights or any(p.dtype != torch.float64 for p in weights.values()):
        raise UnusableInput(
            "danskin divides small differences of the loss: give a network with weights in float64 "
            "(network.double(), and images with them)"
        )

    def losses(weights: Weights, points: Tensor) -> Tensor:
        """`[candidates, batch]`."""
        logits = call_with(network, weights, points.flatten(0, 1))
        labels = y.repeat(len(points))
        return nn.functional.cross_entropy(logits, labels, reduction="none").view(points.shape[:2])

    def robust(weights: Weights) -> tuple[Tensor, Tensor]:
        """The largest loss of each example, and the candidates."""
        _put(network, weights)
        try:
            points = maximise(network).detach()
        finally:
            _put(network, here)
        with torch.no_grad():
            return losses(weights, points).amax(0), points

    here = {name: w.clone() for name, w in weights.items()}
    base, points = robust(here)
    with torch.no_grad():
        own = losses(here, points)
    tied = own >= base - tie * base.abs()
    measured, predicted, at_one = [], [], []
    for _ in range(directions):
        way = _direction(here, generator)
        there, _ = robust({name: w + step * way[name] for name, w in here.items()})
        measured.append(float((there - base).mean()) / step)
        slopes = _along(way, here, lambda w: losses(w, points))
        predicted.append(float(slopes.masked_fill(~tied, -torch.inf).amax(0).mean()))
        at_one.append(float(slopes.gather(0, own.argmax(0)[None])[0].mean()))
    return Danskin(
        measured=torch.tensor(measured),
        predicted=torch.tensor(predicted),
        at_one=torch.tensor(at_one),
        maximisers=_different(points, tied, x),
    )


def _direction(weights: Weights, generator: torch.Generator | None) -> Weights:
    drawn = {name: torch.randn(w.shape, generator=generator, dtype=w.dtype) for name, w in weights.items()}
    length = torch.stack([d.norm() for d in drawn.values()]).norm()
    return {name: (d / length).to(weights[name].device) for name, d in drawn.items()}


def _along(way: Weights, weights: Weights, losses: Callable[[Weights], Tensor]) -> Tensor:
    """The slope of each loss, by one gradient of all: what their sum's slope owes to each one's share in it."""
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    each = losses(leaves)
    share = torch.ones_like(each, requires_grad=True)
    grads = torch.autograd.grad(
        (share * each).sum(), list(leaves.values()), create_graph=True, allow_unused=True
    )
    parts = [(g * way[name]).sum() for name, g in zip(leaves, grads, strict=True) if g is not None]
    return torch.autograd.grad(torch.stack(parts).sum(), share)[0]


def _put(network: nn.Module, weights: Weights) -> None:
    with torch.no_grad():
        for name, p in network.named_parameters():
            p.copy_(weights[name])


def _different(points: Tensor, tied: Tensor, x: Tensor) -> Tensor:
    """`[batch]`: of the tied candidates, how many lie apart from all tied ones before them."""
    flat, size = points.flatten(2), (points - x).flatten(2).norm(dim=2).amax(0)
    counts = torch.zeros(points.shape[1], dtype=torch.int64)
    for k in range(len(flat)):
        same = [tied[j] & ((flat[k] - flat[j]).norm(dim=1) <= 1e-4 * size) for j in range(k)]
        before = torch.stack(same).any(0) if same else torch.zeros_like(tied[k])
        counts += (tied[k] & ~before).cpu()
    return counts
