"""What is the same in two runs, and what is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ..intercept.operations import UNSET
from .values import Key, Record, Trace, Value

# Fractions of epsilon at which the network is moved. Ours: an attack's steps are between a sixteenth and a quarter.
SCALES = (1.0, 0.25, 0.0625)
# Another image in its place: for operations, such as an arg-max at the output, that no small move changes.
EXCHANGED = 100.0

# Relative difference between the results of two kernels for one operation, as run where a gradient is wanted. Ours.
KERNELS = 1e-3

# The operations of each moved run, to be found by name, place and ordinal.
Twins = Mapping[float, Mapping[Key, Record]]


def twins_of(moved: Mapping[float, Trace]) -> Twins:
    """The operations of each moved run under their keys."""
    return {scale: {r.key: r for r in trace.records} for scale, trace in moved.items()}


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold equal numbers; NaN equals NaN."""
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def equal(a: Value, b: Value) -> bool:
    """Whether two values held equal numbers; NaN equals NaN. Where the numbers are gone, their digests tell."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.kept is None or b.kept is None:
        return a.print == b.print
    return a.kept is b.kept or same(a.kept, b.kept)


def changed(r: Record, after: Record | None) -> bool:
    """Whether an operation gave something else in another run, or was not there."""
    if after is None or len(after.outputs) != len(r.outputs):
        return True  # the path through the code depends on the input
    if r.plain is not None or after.plain is not None:
        return repr(r.plain) != repr(after.plain) or any(
            not equal(a, b) for a, b in zip(r.inputs, after.inputs, strict=False)
        )
    return any(not equal(a, b) for a, b in zip(r.outputs, after.outputs, strict=True))


def decided_otherwise(r: Record, after: Record | None) -> bool:
    """Whether what an operation gives without a gradient is something else in another run: of sort, the indices."""
    lost = [n for n, v in enumerate(r.outputs) if not v.carries]
    if not lost or after is None or len(after.outputs) != len(r.outputs):
        return changed(r, after)
    return any(not equal(r.outputs[n], after.outputs[n]) for n in lost)


def inputs_differ(before: Record, after: Record) -> bool:
    """Whether an operation already got different tensors from operations before it."""
    if len(before.inputs) != len(after.inputs):
        return False
    return any(
        (a.producer >= 0 or a.from_input) and not equal(a, b)
        for a, b in zip(before.inputs, after.inputs, strict=True)
    )


def moves(r: Record, n: int, twins: Twins) -> bool:
    """Whether the n-th tensor that an operation gets depends on the network's input."""
    found = [run[r.key] for run in twins.values() if r.key in run]
    return any(len(t.inputs) <= n or not equal(r.inputs[n], t.inputs[n]) for t in found)


def unaccounted(base: Trace, twins: Twins) -> Iterator[tuple[Record, list[int]]]:
    """Operations that get what depends on the input although no operation made it from the input, and as which tensors.

    It came another way: as bytes, out of a file, through somebody's memory.
    """
    led: set[int] = set()
    for r in base.records:
        if any(v.from_input or v.producer in led for v in r.inputs):
            led.add(r.index)
        places = [
            n
            for n, v in enumerate(r.inputs)
            if not (v.from_input or v.producer in led or _graph(v) or _unset(base, v)) and moves(r, n, twins)
        ]
        if places:
            yield r, places


def _graph(value: Value) -> bool:
    """Whether an operation made it, if one that nobody sees, such as `as_subclass`."""
    return value.carries and not value.leaf


def _unset(base: Trace, value: Value) -> bool:
    """Whether it is memory as it was handed out."""
    if value.producer < 0:
        return False
    maker = base.records[value.producer]
    return maker.name in UNSET and maker.outputs[0].version == value.version


def of_one_kind(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have one shape and one type, whatever they hold."""
    return a.shape == b.shape and a.dtype == b.dtype


def alike(tensor: Tensor, shadow: Tensor) -> bool:
    """Whether two tensors are the same up to what another kernel makes of it."""
    if not of_one_kind(tensor, shadow):
        return False
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.is_meta:
        return True
    a, b = tensor.detach(), shadow.detach()
    return torch.equal(a, b) or torch.allclose(a, b, rtol=KERNELS, atol=1e-6, equal_nan=True)
