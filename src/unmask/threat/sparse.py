"""Adversaries who replace a few pixels by anything that the box allows, wherever they like."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import UnusableInput
from ..randomness import Streams
from .base import Images, ThreatModel, Values
from .lp import L2

Mask = Bool[Tensor, "batch ..."]
Scores = Float[Tensor, "batch *units"]


class FewPixels(ThreatModel):
    """Some units of the input, pixels or elements, may take any value; which sets of them is the subclass's.

    `epsilon` counts, so that it is a whole number. What is allowed is not convex: no direction is steepest, and an
    attack chooses a set (`support`) and what to write there.

    **Class fields**
    - `unit`: what is counted, for messages.
    """

    unit: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.epsilon != math.inf and self.epsilon != int(self.epsilon):
            raise UnusableInput(
                f"epsilon is {self.epsilon:g}, and {self.norm} counts {self.unit}: give a whole number, such as 5"
            )

    @abstractmethod
    def units(self, values: Images) -> Scores:
        """Sums over what counts as one: `[batch, *units]`."""

    @abstractmethod
    def support(self, scores: Scores) -> Mask:
        """The allowed set with the largest total of scores, none of them negative; broadcasts to the input."""

    def random_support(self, x: Images, *, generator: torch.Generator | Streams) -> Mask:
        """An allowed set, each as likely as any other."""
        streams = Streams.of(generator, len(x))
        return self.support(streams.uniform(*self.units(x[:1]).shape[1:], device=x.device))

    def scaled(self, factor: float) -> FewPixels:
        """The same adversary with `factor` times the budget, rounded (a half upwards)."""
        return replace(self, epsilon=float(math.floor(factor * self.epsilon + 0.5)))

    def around(self, shape: Sequence[int]) -> L2:
        """A Euclidean ball whose radius is the longest perturbation that is allowed."""
        most = math.prod(shape) * min(1.0, self._share(shape))
        return L2(epsilon=(self.box[1] - self.box[0]) * math.sqrt(most), box=self.box, goal=self.goal)

    @abstractmethod
    def _share(self, shape: Sequence[int]) -> float:
        """Of all units, those that may change at once."""

    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        # What keeping an element saves: d^2 - (d - c)^2, where c is as much of d as the box allows.
        # Croce & Hein 2019 (arXiv:1909.05040), section 3.1.
        inside = x_adv.clamp(*self.box)
        kept = inside - x
        saved = kept * (2 * (x_adv - x) - kept)
        projected = torch.where(self.support(self.units(saved)), inside, x)
        return projected if out is None else out.copy_(projected)

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        return self._at_random(x, generator, corners=False)

    def random_point(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        """A random allowed set, all of it at random ends of the box."""
        return self._at_random(x, generator, corners=True)

    def _at_random(self, x: Images, generator: torch.Generator | Streams, *, corners: bool) -> Images:
        streams = Streams.of(generator, len(x))
        mask = self.random_support(x, generator=streams)
        low, high = self.box
        values = streams.uniform(*x.shape[1:], device=x.device).to(x.dtype)
        values = (values >= 0.5).to(x.dtype) if corners else values
        return torch.where(mask, (low + (high - low) * values).clamp_(low, high), x)

    def settle(self, x_adv: Images, x: Images) -> Images:
        # A projection lands inside exactly: what it does not keep is `x`, bit by bit. What is inside stays as it is.
        inside = self.contains(x_adv, x).reshape(-1, *[1] * (x.ndim - 1))
        return torch.where(inside, x_adv, self.project(x_adv, x))


def _largest(scores: Scores, count: float) -> Mask:
    flat = scores.flatten(1)
    # Stable: among equals the first, whatever the size of the batch.
    order = flat.sort(dim=1, descending=True, stable=True).indices
    best = order[:, : int(min(count, flat.shape[1]))]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, best, True).reshape(scores.shape)


class Counted(FewPixels):
    """At most `epsilon` units change, wherever they are."""

    def distance(self, x_adv: Images, x: Images) -> Values:
        """How many units differ."""
        return (self.units((x_adv != x).double()) > 0).flatten(1).sum(1).double()

    def widest(self, shape: Sequence[int]) -> float:
        return float(self.units(torch.empty(1, *shape, device="meta")).numel())

    def check_radius(self, shape: Sequence[int]) -> None:
        if self.epsilon >= self.widest(shape):
            raise UnusableInput(
                f"epsilon is {self.epsilon:g}, and an input has {self.widest(shape):g} {self.unit} ({self.norm}): "
                "give a smaller number of them"
            )

    def _share(self, shape: Sequence[int]) -> float:
        return self.epsilon / self.widest(shape)


@dataclass(frozen=True, kw_only=True)
class L0(Counted):
    """At most `epsilon` pixels change, each in all its channels: the sparse adversary of the field.

    **Source**: Croce & Hein 2019, arXiv:1909.05040; Croce et al. 2022, arXiv:2006.12834.

    >>> L0(epsilon=2).distance(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    tensor([16.], dtype=torch.float64)
    """

    norm: ClassVar[str] = "l0"
    unit: ClassVar[str] = "pixels"

    def units(self, values: Images) -> Scores:
        """Summed over the channels, dimension one; the features of a vector have none."""
        return values if values.ndim == 2 else values.sum(1)

    def support(self, scores: Scores) -> Mask:
        mask = _largest(scores, self.epsilon)
        return mask if mask.ndim == 2 else mask[:, None]


@dataclass(frozen=True, kw_only=True)
class L0Elements(Counted):
    """At most `epsilon` numbers of the input change: the channels of a pixel count apart.

    >>> L0Elements(epsilon=2).distance(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    tensor([48.], dtype=torch.float64)
    """

    norm: ClassVar[str] = "l0-elements"
    unit: ClassVar[str] = "elements"

    def units(self, values: Images) -> Scores:
        return values

    def support(self, scores: Scores) -> Mask:
        return _largest(scores, self.epsilon)
