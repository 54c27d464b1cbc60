"""The soft-max with which a network turns its logits into probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from ..classifier import LEAST, Classifier
from .intercept.sites import Site
from .record.passes import record
from .record.values import Record, Trace
from .suspect import base_name


def _soft_max(r: Record) -> bool:
    return base_name(r) == "softmax"


def last_soft_max(trace: Trace) -> Record | None:
    """The soft-max whose result, or the log of it, is what the network returned."""
    said = trace.logits.detach()
    for r in reversed(trace.records):
        if not _soft_max(r) or not r.outputs or r.outputs[0].shape != said.shape:
            continue
        made = r.outputs[0].data.to(said.dtype)
        if torch.equal(made, said) or torch.equal(made.clamp_min(LEAST).log(), said):
            return r
    return None


def soft_max_at_the_end(classifier: Classifier, x: Tensor) -> Site | None:
    """Where the network makes probabilities of its logits; None where no soft-max of torch's does.

    **Cost**: one recorded forward.
    """
    try:
        found = last_soft_max(record(classifier, x, seed=0, keep=_soft_max))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # anybody's code, run with somebody looking: then nothing is said about where
        return None
    return None if found is None else found.site
