"""What stands for a hidden part that mixes neighbours: a filter that is fitted to what left and what came back.

A blur, a median or a resampling is no identity: its gradient goes to the pixels around, too. One small filter for all
places has so few weights that the images that were traced are enough to fit it; no further pass is needed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..rules import fitted, neighbours
from .likeness import ALIKE

# Least gain in correlation, on images that the filter was not fitted to, for it to take the identity's place; and from
# which correlation on the identity needs no help. Ours.
BETTER, ENOUGH = 0.03, 0.98
# Places from one side of the filter to the other. Ours.
SIZE = 5
# The same of filters that choose a neighbour by its rank.
RANKED = (3, 5)


def sharpened(source: Tensor, target: Tensor, fit: tuple) -> tuple[float, tuple] | None:
    """A way to shape the source like the target through a filter, and its correlation; None where `fit` does as well.

    **Arguments**
    - `source`, `target`: what left and what came back, `[…, length]` or `[…, height, width]` of several images.
    - `fit`: as of `Bridge`, without a filter.
    """
    views = [2] if target.ndim > 2 else [1, 0] if _square(target) else [1]
    if target.ndim < 2 or len(target) < 2 or min(target.shape[-max(views) :]) < SIZE:
        return None
    a = fitted(source, fit, target.shape).double()
    b = target.double()
    plain = _correlation(a, b)
    if plain > ENOUGH:
        return None
    found = [
        made for places in views for made in (_by_rank(a, b, places, fit), _by_filter(a, b, places, fit))
    ]
    best = max(found, key=lambda pair: pair[0])
    return best if best[0] >= max(plain + BETTER, ALIKE) else None


def _square(rows: Tensor) -> bool:
    return rows.ndim == 2 and rows.shape[1] >= SIZE**2 and math.isqrt(rows.shape[1]) ** 2 == rows.shape[1]


def _by_filter(a: Tensor, b: Tensor, places: int, fit: tuple) -> tuple[float, tuple]:
    """The filter that is most like what came back, and its correlation on images that it was not fitted to."""
    windows = neighbours(a, places, SIZE ** (places or 2))  # [..., window]
    known = torch.arange(len(a)) % 2 == 0
    held = [
        _correlation(windows[~part] @ weights, b[~part])
        for part in (known, ~known)
        if (weights := _regressed(windows[part], b[part])) is not None
    ]
    weights = _regressed(windows, b)
    if weights is None or len(held) < 2:
        return 0.0, fit
    return min(held), ("filter", tuple(weights.tolist()), places, fit)


def _by_rank(a: Tensor, b: Tensor, places: int, fit: tuple) -> tuple[float, tuple]:
    """The rank among how many neighbours that is most like what came back, as a median is; and its correlation."""
    found = []
    for side in RANKED:
        count = side ** (places or 2)
        ordered = neighbours(a, places, count).sort(-1).values
        found += [(_correlation(ordered[..., n], b), ("rank", n, places, count, fit)) for n in range(count)]
    return max(found, key=lambda pair: pair[0])


def _regressed(windows: Tensor, target: Tensor) -> Tensor | None:
    a, b = windows.flatten(0, -2), target.flatten()
    if len(a) < 2 * a.shape[1]:
        return None
    a, b = a - a.mean(0), b - b.mean()
    gram = a.T @ a
    ridge = 1e-4 * gram.diagonal().mean().clamp_min(1e-12)
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), a.T @ b)


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a.flatten() - a.mean(), b.flatten() - b.mean()
    size = a.norm() * b.norm()
    return float((a @ b) / size) if size > 0 else 0.0
