"""Points beside an image that leave the range of images, and networks that refuse such points."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from ..errors import ModelFailed

T = TypeVar("T")


def asked_at(ask: Callable[[Tensor], T], points: Tensor, x: Tensor) -> T:
    """What `ask` says of `points`, of shape `[n, *dims]`; where it raises there, of the nearest in the range of images.

    A compression in front of a network wants no negative pixels, and an estimate that dies of them says nothing. Images
    lie in [0, 1], or as far out as those of `x` do.

    **Cost**: one call of `ask`, two where the network refuses.
    **Raises** `ModelFailed` where it raises on points in that range, too.
    """
    try:
        return ask(points)
    except ModelFailed:
        inside = points.clamp(min(0.0, float(x.amin())), max(1.0, float(x.amax())))
        if torch.equal(inside, points):
            raise
        return ask(inside)
