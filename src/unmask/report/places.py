"""Findings by the place they are at: one operation may harm gradients in several ways."""

from __future__ import annotations

from collections.abc import Sequence

from ..audit.records import MaskingFinding


def by_place(findings: Sequence[MaskingFinding]) -> list[list[MaskingFinding]]:
    """Those of one operation on one line together, in the order of the first of each."""
    groups: dict[tuple[str | int | None, ...], list[MaskingFinding]] = {}
    for n, found in enumerate(findings):
        # Without a place nobody knows whether two are of one.
        place = (found.file, found.line, found.inside, found.operation) if found.file else (n,)
        groups.setdefault(place, []).append(found)
    return list(groups.values())


def repairs(group: Sequence[MaskingFinding]) -> list[str]:
    """What was done about them, each once."""
    return list(dict.fromkeys(found.repair for found in group if found.repair))
