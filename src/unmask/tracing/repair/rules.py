"""Which operations get which backward pass: records that say it, without running anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Group = tuple[str, str, int]
INPUT: Group = ("input", "", 0)
# How far from a rank's value a neighbour still has a share in it, as a part of the neighbours' spread. Ours.
NEARLY = 0.1


@dataclass(frozen=True)
class Smooth:
    """Differentiate the smooth surrogate of `surrogates.SMOOTH`, smeared over `width`."""

    width: float


@dataclass(frozen=True)
class Gain:
    """Differentiate a saturating function where its input is `gain` times as large.

    **Source**: Brendel & Bethge 2017, arXiv:1704.01547.
    """

    gain: float


@dataclass(frozen=True)
class Keep:
    """Keep the operation's own derivative, but finite."""


@dataclass(frozen=True)
class Redifferentiate:
    """Differentiate what a custom `autograd.Function` computes forwards, instead of the backward it was given.

    **Fields**
    - `soften`: widths of the steps inside it, as multiples of the typical ones.
    """

    soften: float = 1.0


@dataclass(frozen=True, eq=False)
class Measure:
    """Differentiate a slope that is measured on the operation alone (`measured.py`).

    **Fields**
    - `learned`: linear maps by the shapes of input and result, filled as the network runs; None where there is none.
    """

    learned: dict[tuple[Any, ...], Tensor | None] = field(default_factory=dict)


@dataclass(frozen=True)
class PassThrough:
    """Straight through: the gradient of the output goes to the first input of the same shape (BPDA with identity)."""


@dataclass(frozen=True)
class Bridge:
    """BPDA across a region: at `target`'s result, the gradient goes on to what `source` held, times `slope`.

    **Fields**
    - `source`: name and place of the operation that made the tensor before the region, or `INPUT`; `output` says which
      of its results. For a way out of torch (`.numpy()`) it is the tensor that left.
    - `pairing`: `each` (n-th source to n-th target), `item` (one source, the n-th image of it to the n-th target) or
      `stack` (all sources, stacked, to the one target).
    - `fit`: makes the source like the target: `same`, `permute`, `resize`, `filter`, `rank` or `curve`, with what that
      needs.
    - `argument`: the target is not the result but this tensor argument of the operation, which came from where no
      operation was seen.
    - `surrogate`: a differentiable function of the source that takes the place of `fit` and `slope`.
    - `alone`: the region is the target operation itself, and its source the first float tensor that it is given.
    """

    source: Group
    target: Group
    slope: float
    output: int = 0
    pairing: str = "each"
    fit: tuple[Any, ...] = ("same",)
    argument: int | None = None
    surrogate: Callable[[Tensor], Tensor] | None = None
    alone: bool = False


@dataclass(frozen=True)
class Probabilities:
    """Of the soft-max that ends a network: differentiate the log-soft-max where a log follows, however small the share.

    The value is the soft-max's, but never below `classifier.LEAST`, which is what such a log counts for zero.
    """


@dataclass(frozen=True)
class LogShares:
    """Of a soft-max, sigmoid or exponential in a network: a log that is taken of it later is differentiated as its own.

    However small a share is, cut off at a floor or out of range in sixteen bits, its log then has a slope (`logs.py`).
    The slope is taken where the logits are `gain` times as large.
    """

    gain: float = 1.0


Rule = Smooth | Gain | Keep | Redifferentiate | Measure | PassThrough | Probabilities | LogShares


@dataclass(frozen=True)
class Rewrite:
    """Which operations get which backward pass.

    **Fields**
    - `rules`: by name and place; they hold for every call at that place.
    - `bridges`: by the key of the operation that ends a region.
    - `heal_cuts`: go on behind `detach` and under `no_grad`, and through NumPy's own operations.
    - `soften`: every step on the way, with or without a rule, gets a smooth surrogate, whose width is this multiple of
      the typical one; None leaves those without a rule as they are. Behind a cut nobody has seen which of them do harm.
    - `unroll`: differentiate the gradients, too, that the network takes of its own.
    - `relaxed`: what follows a step is differentiated at the surrogate's value, not at the step's. A quotient of what a
      soft-max has made one-hot has no slope left; of the softened soft-max it has. Needs `heal_cuts`: the user's code
      keeps its own numbers, and the relaxed ones travel beside them.
    """

    rules: Mapping[Group, Rule] = field(default_factory=dict)
    bridges: tuple[Bridge, ...] = ()
    heal_cuts: bool = False
    soften: float | None = None
    unroll: bool = False
    relaxed: bool = False

    def and_(self, other: Rewrite) -> Rewrite:
        """What both change; where both know a place, as this one does."""
        return Rewrite(
            {**other.rules, **self.rules},
            tuple({bridge.target: bridge for bridge in (*other.bridges, *self.bridges)}.values()),
            self.heal_cuts or other.heal_cuts,
            other.soften if self.soften is None else self.soften,
            self.unroll or other.unroll,
            self.relaxed or other.relaxed,
        )


def fitted(source: Tensor, fit: tuple[Any, ...], shape: torch.Size | tuple[int, ...]) -> Tensor:
    """The source of a bridge in the shape of its target."""
    if fit[0] == "permute":
        source = source.permute(*fit[1])
    elif fit[0] == "resize":
        source = torch.nn.functional.interpolate(source, size=shape[2:], mode="bilinear", align_corners=False)
    elif fit[0] == "filter":
        _, weights, places, before = fit
        windows = neighbours(fitted(source, before, shape), places, len(weights))
        return windows @ torch.tensor(weights, dtype=windows.dtype, device=windows.device)
    elif fit[0] == "rank":
        _, rank, places, count, before = fit
        source = ranked(neighbours(fitted(source, before, shape), places, count), rank)
    elif fit[0] == "curve":
        source = along(source, *fit[1:])
    return source.reshape(shape)


def along(values: Tensor, low: float, step: float, heights: tuple[float, ...]) -> Tensor:
    """The values along a curve from `low` on, on a line from one of its `heights` to the next, `step` apart."""
    curve = torch.tensor(heights, dtype=values.dtype, device=values.device)
    at = ((values.detach() - low) / step).nan_to_num().clamp(0, len(heights) - 2).long()
    return curve[at] + (curve[at + 1] - curve[at]) / step * (values - low - at * step)


def ranked(windows: Tensor, rank: int) -> Tensor:
    """The value of a rank in each window, `[…, count]`, shared among those that are nearly of this rank."""
    near = (windows - windows.kthvalue(rank + 1, -1, keepdim=True).values).detach()
    spread = near.square().mean().sqrt().clamp_min(1e-6)
    shares = torch.softmax(-near.abs() / (NEARLY * spread), -1)
    return (windows * shares).sum(-1)


def neighbours(values: Tensor, places: int, count: int) -> Tensor:
    """The values around each place, `[*shape, count]`; the outermost ones go on beyond the border.

    **Arguments**
    - `places`: 1 for rows `[…, length]`, 2 for images `[…, height, width]`, 0 for square images written as rows.
    - `count`: how many values, an odd number in each direction.
    """
    sizes = values.shape[-places:] if places else (math.isqrt(values.shape[-1]),) * 2
    side = round(count ** (1 / len(sizes)))
    around = side // 2
    flat = values.reshape(-1, 1, *sizes)
    flat = torch.nn.functional.pad(flat, (around,) * (2 * len(sizes)), mode="replicate")
    for dim in range(2, 2 + len(sizes)):
        flat = flat.unfold(dim, side, 1)
    return flat.reshape(*values.shape, count)
