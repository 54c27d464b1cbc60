"""Of which operations the repairs want to see the numbers: what is suspected, and where its region may begin or end."""

from __future__ import annotations

from collections.abc import Iterator

from .intercept.operations import EXITS
from .record.values import Key, Record
from .repair.regions.bridges import REGION, made_before
from .repair.regions.crossings import BEYOND, LOOKED_AT, arrivals, exit_crossing
from .repair.regions.likeness import dependents
from .repair.rules import Group
from .suspect import Analysis, Asks

# How many operations after a draw are looked at for what it drops, and how many more for where that ends. Ours.
DRAWN, ENDS = 30, 6


def asked_about(analysis: Analysis) -> set[Key]:
    """Keys of the operations whose tensors `propose` and `learn_surrogate` compare."""
    groups = set(_groups(analysis))
    return {r.key for r in analysis.base.records if r.group in groups}


def _groups(analysis: Analysis) -> Iterator[Group]:
    records = analysis.base.records
    for s in analysis.suspects:
        for r in s.records[:1]:
            if s.symptom.asks is not Asks.FINITE:
                yield from _after(records, r, REGION)
                yield from (before.group for before in made_before(analysis, r))
        yield from (r.group for r in s.records)
    draws = {o.group for o in analysis.origins}
    for r in records:
        if r.group in draws:
            yield from _after(records, r, DRAWN + ENDS)
    if not analysis.asking(Asks.REOPEN):
        return
    for r, _ in arrivals(analysis):
        yield from (before.group for before in records[max(0, r.index - LOOKED_AT) : r.index + 1])
    crossing = exit_crossing(analysis)
    if crossing is not None:
        yield from (r.group for r in records if r.name in EXITS)
        yield from _after(records, crossing.first, BEYOND)


def _after(records: list[Record], first: Record, count: int) -> Iterator[Group]:
    yield first.group
    yield from (r.group for r in dependents(records, first.index)[:count])
