"""What the published scale would take on this device, from passes per second that are measured here."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

ROUNDS = 3  # timed batches of each network; the median counts


@dataclass(frozen=True, kw_only=True)
class Work:
    """One row at the published scale.

    **Fields**
    - `network`: what is differentiated, untrained or not, for speed is all that is asked of it.
    - `deployed`: what passes forward alone go through; None for the same.
    - `shape`: of one image.
    - `gradients`: passes forward and backward, in examples; `forwards`: passes forward alone.
    - `batch_size`: of the timing.
    """

    network: Callable[[], nn.Module]
    shape: tuple[int, ...]
    gradients: float
    forwards: float = 0.0
    deployed: Callable[[], nn.Module] | None = None
    batch_size: int = 20


@dataclass(frozen=True)
class Speed:
    """Examples a second: forward and backward, and forward alone."""

    gradients: float
    forwards: float

    def seconds(self, work: Work) -> float:
        """That all passes of a row take at this speed."""
        return work.gradients / self.gradients + work.forwards / self.forwards


def speed(work: Work, device: str) -> Speed:
    """Measured on random images; the first batch warms up and does not count."""
    network = work.network().to(device).eval()
    deployed = network if work.deployed is None else work.deployed().to(device).eval()
    x = torch.rand(work.batch_size, *work.shape, device=device)
    y = torch.zeros(work.batch_size, dtype=torch.int64, device=device)

    def gradient() -> None:
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(network(leaf), y), leaf)

    @torch.no_grad()
    def forward() -> None:
        deployed(x)

    return Speed(*(work.batch_size / _seconds(once, device) for once in (gradient, forward)))


def _seconds(once: Callable[[], None], device: str) -> float:
    spent = []
    for _ in range(ROUNDS + 1):
        began = time.perf_counter()
        once()
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - began)
    return median(spent[1:])


def forecast(works: Mapping[str, Work], device: str) -> str:
    """A table in Markdown: passes, measured speed, hours."""
    lines = ["| at the published scale | gradients | forwards | a second, on this device | hours |"]
    lines += ["|---|---|---|---|---|"]
    for name, work in works.items():
        found = speed(work, device)
        rate = f"{found.gradients:,.0f} gradients, {found.forwards:,.0f} forwards"
        hours = found.seconds(work) / 3600
        lines.append(f"| {name} | {work.gradients:,.0f} | {work.forwards:,.0f} | {rate} | {hours:,.2f} |")
    return "\n".join(lines) + "\n"
