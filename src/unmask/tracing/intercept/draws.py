"""Draws of random numbers that no torch operation makes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .operations import tensors_in

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


def random_state_for(kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Every generator that an operation may draw from; Python's own only where a whole part of the network runs."""
    own = [(g, g.get_state()) for g in (*args, *kwargs.values()) if isinstance(g, torch.Generator)]
    device = next((t.device for t in tensors_in((args, kwargs)) if t.is_cuda), None)
    cuda = None if device is None else (device, torch.cuda.get_rng_state(device))
    python = None if kind == "torch" else (random.getstate(), np.random.get_state())
    return torch.get_rng_state(), own, cuda, python


def set_random_state(state: Any) -> None:
    """Puts back what `random_state_for` gave."""
    torch.set_rng_state(state[0])
    for generator, held in state[1]:
        generator.set_state(held)
    if state[2] is not None:
        torch.cuda.set_rng_state(state[2][1], state[2][0])
    if state[3] is not None:
        random.setstate(state[3][0])
        np.random.set_state(state[3][1])
