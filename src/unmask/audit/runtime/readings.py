"""What a control said, as the journal keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...diagnostics import Reading, Tried
from ...threat import ThreatModel
from .journal import Entry


def entry_of(reading: Reading | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A reading as the journal keeps it."""
    if reading is None:
        return {"reading": None}, {}
    said = {k: v for k, v in vars(reading).items() if k != "tried"}
    tensors = {f"x_adv {n}": t.x_adv for n, t in enumerate(reading.tried)}
    tensors |= {
        f"rate {n}": t.failure_rate for n, t in enumerate(reading.tried) if t.failure_rate is not None
    }
    tried = [{"by": t.by, "epsilon": t.threat.epsilon, "draws": t.draws} for t in reading.tried]
    return {"reading": said, "tried": tried}, tensors


def reading_of(entry: Entry, threat: ThreatModel, device: torch.device) -> Reading | None:
    """A reading as the journal kept it."""
    record, tensors = entry.record, {k: t.to(device) for k, t in entry.tensors.items()}
    if record["reading"] is None:
        return None
    tried = tuple(
        Tried(
            by=t["by"],
            threat=replace(threat, epsilon=t["epsilon"]),
            x_adv=tensors[f"x_adv {n}"],
            failure_rate=tensors.get(f"rate {n}"),
            draws=t["draws"],
        )
        for n, t in enumerate(record["tried"])
    )
    curve = tuple((e, a) for e, a in record["reading"]["curve"])
    return Reading(**record["reading"] | {"curve": curve}, tried=tried)
