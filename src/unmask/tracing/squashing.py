"""The soft-max with which a network turns its logits into probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ..classifier import LEAST, Classifier
from .intercept.sites import Site
from .record.passes import record
from .record.values import Record, Trace
from .suspect import base_name

# What makes shares, what takes their log, and what keeps them from zero before.
SHARES, LOGS = frozenset(("softmax", "sigmoid", "expit", "exp", "exp2")), frozenset(("log", "log2", "log10"))
FLOORS = frozenset(("clamp", "clip", "clamp_min"))
# In how many operations after a soft-max its log may be taken. Ours.
BEYOND = 8
# Part of the shares that a floor must hold to be suspected. Ours.
HELD = 0.1


def _soft_max(r: Record) -> bool:
    return base_name(r) == "softmax"


def last_soft_max(trace: Trace) -> Record | None:
    """The soft-max whose result, or the log of it, is what the network returned."""
    said = trace.logits.detach()
    for r in reversed(trace.records):
        if not _soft_max(r) or not r.outputs or r.outputs[0].shape != said.shape:
            continue
        made = r.outputs[0].data.to(said.dtype)
        if torch.equal(made, said) or torch.allclose(made.clamp_min(LEAST).log(), said, rtol=1e-6, atol=1e-6):
            return r
    return None


def logs_taken(trace: Trace) -> dict[int, Record]:
    """The soft-maxes, sigmoids and exponentials of which a run takes a log, by the index of the log's operation."""
    reached: dict[int, tuple[Record, int]] = {}  # what was made of shares, and in how many steps
    found = {}
    for r in trace.records:
        if base_name(r) in SHARES:
            reached[r.index] = r, 0
            continue
        before = next((reached[v.producer] for v in r.inputs if v.producer in reached), None)
        if before is None or before[1] >= BEYOND:
            continue
        if base_name(r) in LOGS:
            found[r.index] = before[0]
        else:
            reached[r.index] = before[0], before[1] + 1
    return found


def floors_below_logs(trace: Trace) -> set[int]:
    """Indices of the operations that hold a notable part of some shares above a floor before their log is taken."""
    makers = {v.producer for n in logs_taken(trace) for v in trace.records[n].inputs}
    return {
        r.index
        for r in trace.records
        if r.index in makers
        and base_name(r) in FLOORS
        and r.outputs[0].shape == r.inputs[0].shape
        and float((r.outputs[0].data > r.inputs[0].data).float().mean()) > HELD
    }


def soft_max_at_the_end(classifier: Classifier, x: Tensor) -> Site | None:
    """Where the network makes probabilities of its logits; None where something happens to a soft-max's after it.

    **Cost**: one recorded forward.
    """
    try:
        found = last_soft_max(record(classifier, x, seed=0, keep=_soft_max))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # anybody's code, run with somebody looking: then nothing is said about where
        return None
    return None if found is None else found.site
