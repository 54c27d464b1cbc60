"""Operations whose gradient is there but says something else at the scale of an attack."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from ..attention import ATTENTION
from ..intercept.operations import SATURATING
from ..pointwise import GATED
from ..record.compare import SCALES
from ..record.values import Key, Record
from ..squashing import floors_below_logs
from ..suspect import Group, Suspect, base_name, title
from ..symptoms.dying import SATURATED
from ..symptoms.wrong import WRONG
from .runs import Runs, Slope
from .slopes import zero_everywhere

# Below this cosine between predicted and true change, an operation's derivative is useless at an attack's scale. Ours.
USELESS = 0.35
# Share of the changing elements without a derivative above which an operation counts as saturated. Ours.
BLOCKED = 0.5
# Half of their elements are dead by design, and come alive under a large move.
RECTIFIERS = frozenset(("relu", "relu6", "threshold", "hardshrink", "softshrink"))
# Flat on one side: black pixels below a floor leave it under every move, and have a slope from there on.
FLOORS = frozenset("clamp_min clamp_max minimum maximum fmin fmax".split())


def misleading(runs: Runs, found: list[Suspect]) -> list[Suspect]:
    """The places whose own slope predicts nothing, or denies a change that was seen."""
    if not runs.controlled:
        return []
    groups: dict[Group, list[tuple[Record, float]]] = defaultdict(list)
    far, near, *_ = (runs.slopes[scale] for scale in SCALES)
    floors, pairs = floors_below_logs(runs.base), _in_pairs(runs.base.records)
    for r in runs.base.records:
        seen = [runs.slopes[scale][r.key].cosine for scale in SCALES[1:] if r.key in runs.slopes[scale]]
        cosines = [cosine for cosine in seen if cosine == cosine]
        stuck = near[r.key].stuck if r.key in near else 0.0
        if r.key in far and base_name(r) in SATURATING and base_name(r) not in RECTIFIERS:
            stuck = max(stuck, far[r.key].stuck)
        if base_name(r) in FLOORS:
            both = (runs.base.records[n].key for n in pairs.get(r.index, ()))
            stuck = max((far[key].stuck for key in both if key in far), default=0.0)
        if r.index in floors:
            stuck = 1.0
        stuck = max(stuck, _together(r, far, near))
        if (cosines and max(cosines) < USELESS) or stuck > BLOCKED:
            groups[r.group].append((r, min(max(cosines, default=1.0), 1 - stuck)))
    suspects = []
    for group, calls_there in groups.items():
        first = calls_there[0][0]
        if first.kind != "hook" and zero_everywhere(first):
            continue  # already named as lost
        best = max(cosine for _, cosine in calls_there)
        statistics, together = {"cosine": best}, _together(first, far, near)
        if together > BLOCKED and base_name(first) not in GATED | ATTENTION:
            statistics["together"] = together
        flat = base_name(first) in SATURATING or together > BLOCKED
        symptom = SATURATED if first.kind == "torch" and flat else WRONG
        suspects.append(
            Suspect(
                symptom,
                title(group[0], first),
                first.site,
                group,
                first.kind,
                statistics=statistics,
                records=tuple(r for r, _ in calls_there),
            )
        )
    return suspects


def _together(r: Record, far: Mapping[Key, Slope], near: Mapping[Key, Slope]) -> float:
    """What the derivative of operations that are one function denies; from afar, of what rises and of what falls."""
    if r.key not in far or r.key not in near:
        return 0.0
    return max(near[r.key].together[0], far[r.key].together[1])


def _in_pairs(records: list[Record]) -> dict[int, tuple[int, int]]:
    """Floors and ceilings that follow one another, by the index of either: together they are flat on both sides."""
    pairs = {}
    for r in records:
        if base_name(r) in FLOORS:
            for v in r.inputs:
                if v.producer >= 0 and base_name(records[v.producer]) in FLOORS:
                    pairs[v.producer] = pairs[r.index] = v.producer, r.index
    return pairs
