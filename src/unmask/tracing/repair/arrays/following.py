"""Where arrays are made, converted and given back to torch, so that none loses its trail."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...intercept.sites import is_user_file
from ..surrogate_gradient import SurrogateGradient
from .followed import bare, blank, fitting, follow, moved, trail_of


@contextmanager
def following() -> Iterator[None]:
    """Lets trails survive NumPy's conversions."""
    originals = {name: getattr(np, name) for name in ("array", "asarray", "ascontiguousarray", "asanyarray")}

    # To be written into, image by image; a library's own are its own affair.
    fresh = {
        name: getattr(np, name)
        for name in ("zeros", "empty", "zeros_like", "empty_like", "ones", "ones_like")
    }

    def blanks(original: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            made = original(*bare(args), **kwargs)
            return blank(made) if is_user_file(sys._getframe(1).f_code.co_filename) else made

        return make

    def kept(original: Callable[..., Any]) -> Callable[..., Any]:
        def convert(source: Any = None, *args: Any, **kwargs: Any) -> Any:
            if isinstance(source, Tensor):
                source = source.__array__()  # as NumPy itself asks, and with its trail
            if isinstance(source, tuple | list) and any(trail_of(item) is not None for item in source):
                return follow(
                    original(bare(source), *args, **kwargs), trail_of(moved(np.stack, (list(source),), {}))
                )
            trail = trail_of(source)
            return (
                original(source, *args, **kwargs)
                if trail is None
                else follow(original(bare(source), *args, **kwargs), trail)
            )

        return convert

    for name, original in originals.items():
        setattr(np, name, kept(original))
    for name, original in fresh.items():
        setattr(np, name, blanks(original))
    originals |= fresh
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(np, name, original)


def arrived(made: Tensor, source: Any) -> Tensor:
    """What torch made of an array of the same shape, joined to the array's trail; as it was, without one."""
    if isinstance(source, tuple | list) and any(trail_of(item) is not None for item in source):
        source = moved(np.stack, (list(source),), {})
    trail = fitting(trail_of(source), made.shape)
    if trail is None or not trail.requires_grad or not made.is_floating_point():
        return made
    with torch.enable_grad():
        return SurrogateGradient.apply(made.detach(), trail.to(made.device))
