"""Where each image's gradient becomes exactly zero on its way back, by the tracer's record of one pass."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from unmask.classifier import Classifier
from unmask.objectives import cross_entropy
from unmask.tracing.record.passes import record
from unmask.types import Outputs

NOWHERE = "nowhere"
# Numbers in which forward and backward pass are computed.
PRECISIONS = ("float64", "float32", "float32, denormals flushed", "float16")


@contextmanager
def precision(name: str) -> Iterator[torch.dtype]:
    """The type of a name in `PRECISIONS`; the processor flushes denormals while it is so named."""
    flushed = name.endswith("flushed") and torch.set_flush_denormal(True)
    try:
        yield getattr(torch, name.partition(",")[0])
    finally:
        if flushed:
            torch.set_flush_denormal(False)


def origins(network: nn.Module, x: Tensor, y: Tensor, name: str) -> dict[str, int]:
    """How many images' gradients are whole zero from which place on, and how many reach the input.

    The places in the order of the way back: the soft-max in front of the loss, then each recorded operation by its name
    and its layer, counted from the input, where the gradient with respect to its input is zero and that with respect to
    its output is not; `nowhere` for the others.
    """
    with precision(name) as dtype:
        other = copy.deepcopy(network).to(dtype).eval()
        trace = record(Classifier(other, deterministic=True), x.to(dtype), seed=0)
        with torch.enable_grad():
            value = cross_entropy(Outputs(trace.logits), y).sum()
        results = [(r, v.edge) for r in trace.records for v in r.outputs if v.edge is not None]
        at = [trace.x, *(edge for _, edge in results)]
        at_input, *grads = torch.autograd.grad(value, at, allow_unused=True)
        places = [("input", (at_input.flatten(1) == 0).all(1))]
        counts: dict[str, int] = {}
        for (recorded, _), grad in zip(results, grads, strict=True):
            counts[recorded.name] = counts.get(recorded.name, 0) + 1
            if grad is not None and len(grad) == len(x):
                dead = (grad.reshape(len(x), -1) == 0).all(1)
                places.append((f"{recorded.name} {counts[recorded.name]}", dead))
    left = torch.ones(len(x), dtype=torch.bool)
    found: dict[str, int] = {}
    last = "soft-max"
    for place, dead in reversed(places):
        found[last] = found.get(last, 0) + int((dead & left).sum())
        left &= ~dead
        last = place
    return {**{place: count for place, count in found.items() if count}, NOWHERE: int(left.sum())}
