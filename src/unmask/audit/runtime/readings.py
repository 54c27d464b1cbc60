"""What a control said, as the journal keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...diagnostics import Reading, Tried
from ...threat import NormBall, ThreatModel
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
    tried = [{"by": t.by, "threat": _ball(t.threat), "draws": t.draws} for t in reading.tried]
    return {"reading": said, "tried": tried}, tensors


def reading_of(entry: Entry, threat: ThreatModel, device: torch.device) -> Reading | None:
    """A reading as the journal kept it."""
    record, tensors = entry.record, {k: t.to(device) for k, t in entry.tensors.items()}
    if record["reading"] is None:
        return None
    tried = tuple(
        Tried(
            by=t["by"],
            threat=replace(threat, **_told(t["threat"])),
            x_adv=tensors[f"x_adv {n}"],
            failure_rate=tensors.get(f"rate {n}"),
            draws=t["draws"],
        )
        for n, t in enumerate(record["tried"])
    )
    curve = tuple((e, a) for e, a in record["reading"]["curve"])
    return Reading(**record["reading"] | {"curve": curve}, tried=tried)


def _ball(threat: ThreatModel) -> dict[str, Any]:
    """What of a control's threat model is its own."""
    weights = {"weights": threat.weights} if isinstance(threat, NormBall) else {}
    return {"epsilon": threat.epsilon, **weights}


def _told(kept: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in kept.items()}
