"""Radii of single channels or features: what each of them counts in the unit of the largest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import UnusableInput, plural

Weights = tuple[float, ...]


def split(radii: Sequence[Any]) -> tuple[float, Weights | None]:
    """The largest of some radii, and all of them as shares of it; no shares where they are equal.

    **Raises** `UnusableInput` where one is no number that is zero or larger.

    >>> split([0.5, 0.25, 0]), split([0.1, 0.1])
    ((0.5, (1.0, 0.5, 0.0)), (0.1, None))
    """
    try:
        values = [float(r) for r in radii]
    except (TypeError, ValueError) as error:
        raise UnusableInput(f"epsilon is {radii!r}; give one number for each channel or feature") from error
    if not values or not all(0 <= v < math.inf for v in values):
        raise UnusableInput(
            f"epsilon is {values}; give one radius for each channel or feature, zero or larger"
        )
    largest = max(values)
    if all(v == largest for v in values):
        return largest, None
    return largest, tuple(v / largest for v in values)


def shaped(weights: Weights, like: Tensor) -> Tensor:
    """`[1, channels, 1, …]` or `[1, features]`, in the precision and on the device of `like` `[batch, …]`."""
    row = torch.tensor(weights, dtype=like.dtype, device=like.device)
    return row.reshape(1, -1, *[1] * (like.ndim - 2))


def check_count(radii: int, shape: Sequence[int]) -> None:
    """Refuses another number of radii than inputs of that shape, without the batch, have channels or features.

    **Raises** `UnusableInput`.
    """
    if radii != shape[0]:
        what = (
            plural(shape[0], "feature", "features")
            if len(shape) == 1
            else plural(shape[0], "channel", "channels")
        )
        raise UnusableInput(
            f"epsilon has {radii} radii, and an input has {shape[0]} {what}: give one for each, or a single one"
        )
