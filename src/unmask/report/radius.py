"""The curve of accuracy against radius, from the distance of every example's nearest known failure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from ..audit.records import ExampleTable
from ..statistics import clopper_pearson
from . import plots

Distances = Sequence[float | None]


def share_beyond(distances: Distances, radius: float) -> float:
    """The share of examples without a known failure up to a radius: at most so many are robust there.

    >>> share_beyond([0.0, 0.1, 0.3, None], 0.2)
    0.5
    """
    return sum(d is None or d > radius for d in distances) / max(1, len(distances))


def accuracy_against_radius(table: ExampleTable, epsilon: float, claim: float | None, masked: bool) -> Markup:
    """Upper bound of the accuracy of all examples, from radius 0 to epsilon, with the standard attack's beside it."""
    n = len(table.distance)
    radii = np.linspace(0, epsilon, 61) if epsilon else np.zeros(1)
    shares = np.array([share_beyond(table.distance, r) for r in radii])
    band = np.array([clopper_pearson(round(n * s), n) for s in shares])
    figure, axes = plots._figure()
    axes.fill_between(radii, 100 * band[:, 0], 100 * band[:, 1], color=plots.FAINT, lw=0, step="post")
    name = "repaired attacks" if masked else "all attacks"
    axes.step(radii, 100 * shares, where="post", color=plots.ACCENT, lw=1.8, label=name)
    if table.standard:
        plain = [100 * share_beyond(table.standard, r) for r in radii]
        axes.step(radii, plain, where="post", color=plots.INK, lw=1.1, ls="--", label="standard attack")
    if claim is not None:
        axes.plot([epsilon], [100 * claim], "D", color=plots.WARN, ms=5, label="claim", clip_on=False)
    axes.set_xlabel(f"radius; {n} examples, band: 95 % interval")
    axes.set_ylabel("accuracy, %")
    axes.set_ylim(-3, 103)
    axes.set_xlim(0, epsilon or None)
    legend = axes.legend(frameon=False, fontsize=8, loc="best", labelcolor=plots.INK)
    legend.set_in_layout(False)
    return plots._svg(figure, f"Accuracy of {n} examples against the radius")


def rows(table: ExampleTable) -> list[tuple[int, int, int, int, float, float | None]]:
    """Of each example: index, label, clean and found class, failure rate, distance."""
    distances = table.distance or [None] * len(table.index)
    columns = (table.index, table.label, table.clean, table.found, table.failure_rate, distances)
    return list(zip(*columns, strict=True))
