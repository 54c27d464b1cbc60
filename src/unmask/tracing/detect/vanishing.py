"""Operations at which the real gradient dies, or becomes NaN or infinite, on its way back."""

from __future__ import annotations

from collections import defaultdict

from ...objectives import cross_entropy, margin_loss
from ..intercept.sites import Site
from ..record.compare import equal, twins_of
from ..record.values import Record, Trace, digest
from ..suspect import Group, Suspect, Symptom, title
from ..symptoms.dying import VANISHED
from ..symptoms.non_finite import NON_FINITE
from ..symptoms.underflow import UNDERFLOW
from .flow import Passage, follow
from .runs import Runs
from .slopes import zero_everywhere

# Least share of the examples whose gradient must die at one place before it counts. Ours.
DEAD_SHARE = 0.1


def vanishing_and_exploding(runs: Runs, found: list[Suspect]) -> list[Suspect]:
    """Follows the gradients of cross-entropy and margin back to where they stop, unless the way on was lost before."""
    base, y = runs.base, runs.y
    suspects = []
    flow = follow(base, cross_entropy, y)
    if flow.dead_at_logits > DEAD_SHARE and base.records:
        last = _maker_of_logits(base)
        place = _outermost(last)
        statistics = {
            "dead_at_logits": flow.dead_at_logits,
            "largest_logit": float(base.logits.detach().abs().max()),
        }
        suspects.append(
            Suspect(
                UNDERFLOW,
                title(last.name, last),
                place,
                last.group,
                last.kind,
                1.0,
                statistics,
                (last,),
            )
        )
    for objective in (cross_entropy, margin_loss):
        flow = follow(base, objective, y)
        groups: dict[tuple[Symptom, Group], list[Passage]] = defaultdict(list)
        for passage in flow.passages:
            if passage.spoiled > 0:
                groups[NON_FINITE, passage.record.group].append(passage)
            elif passage.killed > DEAD_SHARE and not zero_everywhere(passage.record):
                groups[VANISHED, passage.record.group].append(passage)
        for (symptom, group), passages in groups.items():
            first = passages[0].record
            statistics = {
                "killed": max(p.killed for p in passages),
                "spoiled": max(p.spoiled for p in passages),
                "attenuation": min(p.attenuation for p in passages),
            }
            if any(s.symptom is symptom and s.group == group for s in suspects):
                continue
            records = tuple(p.record for p in passages)
            suspects.append(
                Suspect(
                    symptom, title(group[0], first), first.site, group, first.kind, 1.0, statistics, records
                )
            )
    return [s for s in suspects if not _explained(s, base, runs.moved, runs.lost)]


def _explained(s: Suspect, base: Trace, moved: dict[float, Trace], lost: tuple[Suspect, ...]) -> bool:
    """Whether a gradient dies here only because the way on was lost before: named there already."""
    if s.symptom is not VANISHED:
        return False
    groups = {found.group for found in lost}
    guilty: set[int] = set()
    for r in base.records:  # and whatever was made of their results
        if r.group in groups or any(not v.carries and v.producer in guilty for v in r.inputs):
            guilty.add(r.index)
    by_key = twins_of(moved).values()

    def without_way_on(r: Record) -> bool:
        # Masked by a lost decision: where it says no, nothing comes back, and what it lost is named at the decision.
        if any(not v.carries and v.producer in guilty for v in r.inputs):
            return True
        others = [v for v in r.inputs[1 if r.in_place else 0 :] if v.producer >= 0 or v.from_input]
        if any(v.carries and v.producer not in guilty for v in others):
            return False
        return any(v.producer in guilty for v in r.inputs) or any(
            not a.carries and not equal(a, b)
            for twins in by_key
            if r.key in twins
            for a, b in zip(r.inputs, twins[r.key].inputs, strict=False)
        )

    return any(without_way_on(r) for r in s.records)


def _outermost(r: Record) -> Site:
    """The line of the network's own forward that hands out the logits: their size is made by all that comes before."""
    lines = [f for f in r.frames if f.file]
    return Site(lines[-1].file, lines[-1].line, r.site.module) if lines else r.site


def _maker_of_logits(base: Trace) -> Record:
    said = base.logits.detach()
    printed = digest(said)
    for r in reversed(base.records):
        if any(v.shape == said.shape and v.dtype == said.dtype and v.print == printed for v in r.outputs):
            while not (r.site.file or r.site.module) and r.inputs and r.inputs[0].producer >= 0:
                r = base.records[r.inputs[0].producer]  # read as logits by us, as whole numbers are
            return r
    return base.records[-1]
