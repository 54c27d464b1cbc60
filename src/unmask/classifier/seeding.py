"""Randomness of third-party code, which knows global generators alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds torch, NumPy and Python for third-party code, and puts all three back as they were."""
    devices = [device] if device.type == "cuda" else []
    python, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices):
        _seed_torch(seed, device)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)


def _seed_torch(seed: int, device: torch.device) -> None:
    """As `torch.manual_seed`, which writes down the call stack for every kind of device that has not begun.

    Where there is nothing but the processor, its one generator is all.
    """
    if device.type == "cpu" and not torch.accelerator.is_available():
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
