"""A report held against the claim that it is said to be about: whoever wrote the report also wrote what it claims."""

from __future__ import annotations

import os
from typing import Any

from ..audit.records import Report
from ..claim.claim import Claim


def other_than_claimed(claim: Claim, report: Report) -> list[str]:
    """What the claim states and the report says otherwise, one phrase each.

    Only what the claim states is compared. Where target and data are files, their names are: a claim names them from
    where it lies, the report from where the audit ran.
    """
    said = _said(report)
    found = []
    for name in sorted(claim.model_fields_set & said.keys()):
        stated, got = getattr(claim, name), said[name]
        if name in ("target", "data"):
            same = os.path.basename(stated) == os.path.basename(got)
        else:
            same = stated is None or stated == got or (isinstance(stated, list) and set(stated) == {got})
        if not same:
            found.append(f"{name} is {got}, claimed {stated}")
    return found


def _said(report: Report) -> dict[str, Any]:
    """The fields of a claim that a report answers."""
    return {
        "claim": report.claim,
        "norm": report.threat.norm,
        "epsilon": report.threat.radii or report.threat.epsilon,
        "goal": report.threat.goal,
        "targets": report.targets,
        "knowledge": report.knowledge,
        "queries": report.queries.limit if report.queries else None,
        "passes": report.passes,
        "average": report.average,
        "budget": report.budget,
        "exhaustive": report.exhaustive,
        "seed": report.environment.seed,
        "examples": report.examples,
        "data": report.data,
        "target": report.target,
        "checkpoint_hash": report.environment.checkpoint_hash,
    }
