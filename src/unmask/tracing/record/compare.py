"""What is the same in two runs, and what is not."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .values import Record, Trace

# Fractions of epsilon at which the network is moved. Ours: an attack's steps are between a sixteenth and a quarter.
SCALES = (1.0, 0.25, 0.0625)
# Another image in its place: for operations, such as an arg-max at the output, that no small move changes.
EXCHANGED = 100.0

# The operations of each moved run, to be found by name, place and ordinal.
Twins = Mapping[float, Mapping[tuple[str, str, int, int], Record]]


def twins_of(moved: Mapping[float, Trace]) -> Twins:
    """The operations of each moved run under their keys."""
    return {scale: {r.key: r for r in trace.records} for scale, trace in moved.items()}


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold equal numbers; NaN equals NaN."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def changed(r: Record, after: Record | None) -> bool:
    """Whether an operation gave something else in another run, or was not there."""
    if after is None or len(after.outputs) != len(r.outputs):
        return True  # the path through the code depends on the input
    if r.plain is not None or after.plain is not None:
        return repr(r.plain) != repr(after.plain) or any(
            not same(a.data, b.data) for a, b in zip(r.inputs, after.inputs, strict=False)
        )
    return any(not same(a.data, b.data) for a, b in zip(r.outputs, after.outputs, strict=True))


def decided_otherwise(r: Record, after: Record | None) -> bool:
    """Whether what an operation gives without a gradient is something else in another run: of sort, the indices."""
    lost = [n for n, v in enumerate(r.outputs) if v.edge is None]
    if not lost or after is None or len(after.outputs) != len(r.outputs):
        return changed(r, after)
    return any(not same(r.outputs[n].data, after.outputs[n].data) for n in lost)


def inputs_differ(before: Record, after: Record) -> bool:
    """Whether an operation already got different tensors from operations before it."""
    if len(before.inputs) != len(after.inputs):
        return False
    return any(
        (a.producer >= 0 or a.from_input) and not same(a.data, b.data)
        for a, b in zip(before.inputs, after.inputs, strict=True)
    )
