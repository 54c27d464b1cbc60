"""NumPy's functions by name, and what torch makes in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

# Width of a softened comparison, as a share of the spread of its two sides. Ours, as in `propose`.
WIDTH = 0.25


@contextmanager
def unseen() -> Iterator[None]:
    """A graph is made, and nobody is shown its operations: a trail is ours, not the network's.

    `torch.from_numpy` would be shown all the same, for that is patched.
    """
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        yield


def _step(a: Tensor, b: Any) -> Tensor:
    """How much larger, on the scale of the spread: what a comparison is a step of."""
    gap = a - b
    return gap / (WIDTH * gap.detach().std().clamp_min(1e-6) if gap.numel() > 1 else 1.0)


def _first(a: Tensor, *_: Any) -> Tensor:
    return a


# Of NumPy's universal functions, by name: what the trail becomes.
ALIKE: dict[str, Callable[..., Tensor]] = {
    **{
        n: getattr(torch, n)
        for n in "add subtract multiply maximum minimum exp log log2 log10 log1p expm1".split()
    },
    **{n: getattr(torch, n) for n in "sqrt square sin cos tan tanh arctan matmul fmax fmin clip".split()},
    "true_divide": torch.div,
    "divide": torch.div,
    "power": torch.pow,
    "float_power": torch.pow,
    "negative": torch.neg,
    "absolute": torch.abs,
    "fabs": torch.abs,
    "reciprocal": torch.reciprocal,
    **dict.fromkeys("rint floor ceil trunc round around fix positive nan_to_num conjugate".split(), _first),
    "floor_divide": torch.div,
    **dict.fromkeys(("greater", "greater_equal"), lambda a, b: torch.sigmoid(_step(a, b))),
    **dict.fromkeys(("less", "less_equal"), lambda a, b: torch.sigmoid(-_step(a, b))),
    "sign": lambda a: torch.tanh(_step(a, 0)),
    **dict.fromkeys(("logical_not", "invert"), lambda a: 1 - a),
    **dict.fromkeys(("logical_and", "bitwise_and"), lambda a, b: a * b),
    **dict.fromkeys(("logical_or", "bitwise_or"), lambda a, b: a + b - a * b),
    "where": lambda c, a, b: c * a + (1 - c) * b,
    "dot": torch.matmul,
}
# Sums and the like, of the function and the method alike.
REDUCED: dict[str, Callable[..., Tensor]] = {
    "sum": torch.sum,
    "add": torch.sum,
    "mean": torch.mean,
    "max": torch.amax,
    "amax": torch.amax,
    "maximum": torch.amax,
    "min": torch.amin,
    "amin": torch.amin,
    "minimum": torch.amin,
    "median": lambda a, dim: a.mean(dim),
    "std": lambda a, dim: torch.std(a, dim, correction=0),
    "var": lambda a, dim: torch.var(a, dim, correction=0),
}
