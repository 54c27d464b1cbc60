"""Which of a run's results is most like a tensor, and how the one is shaped into the other."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from ...record.compare import equal
from ...record.values import Record, Value
from ...suspect import Analysis
from ..rules import INPUT, Group, fitted

# Least correlation between what goes into a region and what comes out for the identity to be its surrogate. Ours.
ALIKE = 0.3


def main_input(record: Record) -> Value | None:
    """The input that the operation transforms: the first that carries a gradient."""
    return next((v for v in record.inputs if v.carries and v.floating), None)


def dependents(records: list[Record], start: int) -> list[Record]:
    """Operations that use, directly or not, what `records[start]` made."""
    reached = {start}
    found = []
    for r in records[start + 1 :]:
        if any(v.producer in reached for v in r.inputs):
            reached.add(r.index)
            found.append(r)
    return found


def source_of(analysis: Analysis, value: Value) -> tuple[Group, int] | None:
    """Which operation made a value, and as which of its results."""
    if value.from_input:
        return INPUT, 0
    if value.producer < 0:
        return None
    producer = analysis.base.records[value.producer]
    for n, made in enumerate(producer.outputs):
        if equal(made, value):
            return producer.group, n
    return None


def best_end(
    data: Tensor, ends: list[Record], analysis: Analysis | None = None
) -> tuple[Record, float, float, tuple] | None:
    """The result that is most like `data`, its correlation, the slope, and the way to shape; None where none is alike.

    With an analysis, each result is averaged over its draws.
    """
    best = None
    runs = [{r.key: r for r in trace.records} for trace in analysis.draws] if analysis else []
    for end in ends:
        for n, made in enumerate(end.outputs):
            if not made.floating:
                continue
            twins = [run[end.key].outputs[n].data for run in runs if end.key in run]
            twins = [t for t in twins if t.shape == made.shape]
            made_data = torch.stack(twins).mean(0) if twins else made.data
            alike = likeness(data, made_data)
            if alike is None or alike[0] <= ALIKE:
                continue
            if analysis is None:
                if best is None or alike[0] > best[1] + 0.02:
                    best = (end, *alike)
                continue
            # Averaged over draws, the end of the region is where the expectation is the source itself, factor one.
            source = fitted(data, alike[2], made_data.shape).double()
            factor = float((source * made_data.double()).sum() / source.square().sum())
            if best is None or abs(factor - 1) < abs(best[2] - 1):
                best = (end, alike[0], factor, alike[2])
    return best


def likeness(source: Tensor, target: Tensor) -> tuple[float, float, tuple] | None:
    """Best correlation over the ways to shape the source like the target, the regression slope, and that way."""
    fits: list[tuple] = []
    if source.shape == target.shape:
        fits.append(("same",))
    elif source.numel() == target.numel():
        if source.ndim == target.ndim <= 4:
            fits += [
                ("permute", p)
                for p in itertools.permutations(range(source.ndim))
                if tuple(source.shape[i] for i in p) == tuple(target.shape)
            ]
        fits.append(("same",))
    elif source.ndim == target.ndim == 4 and source.shape[:2] == target.shape[:2]:
        fits.append(("resize",))
    best = None
    for fit in fits:
        a = fitted(source, fit, target.shape).double().flatten()
        b = target.double().flatten()
        a, b = a - a.mean(), b - b.mean()
        size = a.norm() * b.norm()
        if size > 0:
            correlation, slope = float((a @ b) / size), float((a @ b) / (a @ a))
            if best is None or abs(correlation) > best[0]:
                best = (abs(correlation), slope, fit)
    return best
