"""Draws of random numbers that no torch operation makes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_PYTHON_DRAWS = (
    "random randint randrange choice choices uniform gauss normalvariate sample shuffle triangular".split()
)
_NUMPY_DRAWS = (
    "rand randn randint random uniform normal choice permutation binomial shuffle standard_normal random_sample "
    "beta laplace poisson multinomial default_rng"
).split()


@contextmanager
def watching_draws(saw: Callable[[], None]) -> Iterator[None]:
    """Calls `saw` at every draw from Python's and NumPy's global generators."""
    originals = [(random, n, getattr(random, n)) for n in _PYTHON_DRAWS]
    originals += [(np.random, n, getattr(np.random, n)) for n in _NUMPY_DRAWS]

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def draw(*args: Any, **kwargs: Any) -> Any:
            saw()
            return original(*args, **kwargs)

        return draw

    for module, name, original in originals:
        setattr(module, name, watched(original))
    try:
        yield
    finally:
        for module, name, original in originals:
            setattr(module, name, original)


def generator_states() -> tuple[Any, ...]:
    """Of torch, Python and NumPy: how much was drawn so far."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()
