"""The line at which Python code draws a random number unwatched: from a generator of its own, a clock, a device.

Two passes that ought to be equal are followed line by line. The first line after which they differ has drawn.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...classifier import Classifier, seeded
from ..intercept.sites import Site, is_user_file
from ..record.passes import run_network

# A line about to run in a frame, or a frame's return: the frame's number, file, line, and what its variables hold.
Moment = tuple[int, str, int, dict[str, Any]]

# Lines after which a pass is no longer followed: code that walks over pixels has no end. Ours.
LINES = 50_000


def drawing_line(classifier: Classifier, x: Tensor, seeds: tuple[int, int]) -> Site | None:
    """The first of the user's lines after which two passes differ; None where none of the first 50,000 is one.

    **Arguments**
    - `x`: `[batch, channels, height, width]`.
    - `seeds`: of the two passes. If they are equal, variables that hold tensors are compared, too; else these differ
      wherever torch draws.

    **Cost**: two forwards, metered, several times slower than usual.
    """
    one, two = (_moments(classifier, x, seed, tensors=seeds[0] == seeds[1]) for seed in seeds)
    for n, (a, b) in enumerate(zip_longest(one, two)):
        if a is not None and a == b:
            continue
        apart = a is None or b is None or a[:3] != b[:3]
        before = [m for m in one[:n] if apart or m[0] == a[0]] or one[:n]  # pyright: ignore[reportOptionalSubscript]
        return Site(before[-1][1], before[-1][2]) if before else None
    return None


def _moments(classifier: Classifier, x: Tensor, seed: int, *, tensors: bool) -> list[Moment]:
    found: list[Moment] = []
    numbers: dict[FrameType, int] = {}

    def follow(frame: FrameType, event: str, _: Any) -> Any:
        if len(found) >= LINES or not is_user_file(frame.f_code.co_filename):
            return None
        number = numbers.setdefault(frame, len(numbers))
        if event in ("line", "return"):
            held = {name: _print(value, tensors) for name, value in frame.f_locals.items()}
            found.append((number, frame.f_code.co_filename, frame.f_lineno, held))
        return follow

    classifier.meter.forwards += len(x)
    classifier.put_back()
    outer = sys.gettrace()
    with torch.no_grad(), seeded(seed, x.device), _no_collection():
        sys.settrace(follow)
        try:
            run_network(classifier, x.clone())
        finally:
            sys.settrace(outer)
    return found


@contextmanager
def _no_collection() -> Iterator[None]:
    """Within the block no garbage is collected: a generator that somebody left behind would end here, as a line."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _print(value: Any, tensors: bool, depth: int = 2) -> Any:
    """What can be compared between two passes; the same for all values of which nothing is known."""
    if isinstance(value, Tensor):
        return repr(float(value.detach().double().sum())) if tensors and value.numel() else None
    if isinstance(value, np.ndarray | np.generic):
        return value.tobytes()
    if isinstance(value, int | float | str | bytes | complex):
        return repr(value)
    if isinstance(value, nn.Module):
        return id(value)
    if isinstance(value, list | tuple) and depth:
        return [_print(item, tensors, depth - 1) for item in value[:64]]
    if isinstance(value, dict) and depth:
        return [_print(item, tensors, depth - 1) for item in list(value.values())[:64]]
    return None
