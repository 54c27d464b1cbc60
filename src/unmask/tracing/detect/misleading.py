"""Operations whose gradient is there but says something else at the scale of an attack."""

from __future__ import annotations

from collections import Counter, defaultdict

from ...objectives import margin
from ..record.compare import SCALES, twins_of
from ..record.operations import SATURATING
from ..record.values import Record
from ..suspect import Group, Suspect, base_name, title
from ..symptoms.dying import SATURATED
from ..symptoms.wrong import WRONG
from .flow import arriving
from .runs import Runs
from .slopes import agreement, blocked, elementwise, zero_everywhere

# Below this cosine between predicted and true change, an operation's derivative is useless at an attack's scale. Ours.
USELESS = 0.35
# Share of the changing elements without a derivative above which an operation counts as saturated. Ours.
BLOCKED = 0.5
# Half of their elements are dead by design, and come alive under a large move.
RECTIFIERS = frozenset(("relu", "relu6", "threshold", "hardshrink", "softshrink"))
# Flat on both sides of a slope that is as honest as a line's: what counts is how much of the change is denied.
RAMPS = frozenset(("clamp", "clip", "hardtanh", "hardsigmoid"))
# Flat on one side: black pixels below a floor leave it under every move, and have a slope from there on.
FLOORS = frozenset(("clamp_min", "clamp_max"))


def misleading(runs: Runs, found: list[Suspect]) -> list[Suspect]:
    """The places whose own slope predicts nothing, or denies a change that was seen."""
    if not runs.controlled:
        return []
    base, moved, y = runs.base, runs.moved, runs.y
    groups: dict[Group, list[tuple[Record, float]]] = defaultdict(list)
    twins = twins_of(moved)
    # What a division by zero gives where the result is multiplied by zero is nobody's harm, before or after a move.
    gradients = arriving(base, margin, y)
    for scale in SCALES:
        gradients |= arriving(moved[scale], margin, y)
    calls = Counter(r.group for r in base.records)

    def one_by_one(r: Record) -> bool:
        """Whether the images came alone, so that the first dimension of what they became means anything."""
        return calls[r.group] >= len(y) > 1

    for r in base.records:
        if r.kind == "torch" and not elementwise(r):
            continue
        cosines = {}
        for scale in SCALES[1:]:
            after = twins[scale].get(r.key)
            if after is not None:
                cosine = agreement(r, after, gradients, batch=1 if one_by_one(r) else len(y))
                if cosine == cosine:
                    cosines[scale] = cosine
        after = twins[SCALES[1]].get(r.key)
        saturating = base_name(r) in SATURATING
        by_size = not saturating or base_name(r) in RAMPS
        stuck = (
            blocked(r, after, gradients, by_size=by_size) if after is not None and r.kind == "torch" else 0.0
        )
        far = twins[SCALES[0]].get(r.key)
        if far is not None and saturating and base_name(r) not in RECTIFIERS:
            stuck = max(stuck, blocked(r, far, gradients, by_size=by_size))
        if base_name(r) in FLOORS:
            stuck = 0.0
        if (cosines and max(cosines.values()) < USELESS) or stuck > BLOCKED:
            groups[r.group].append((r, min(max(cosines.values(), default=1.0), 1 - stuck)))
    suspects = []
    for group, calls_there in groups.items():
        first = calls_there[0][0]
        if first.kind != "hook" and zero_everywhere(first):
            continue  # already named as lost
        best = max(cosine for _, cosine in calls_there)
        symptom = SATURATED if first.kind == "torch" and base_name(first) in SATURATING else WRONG
        suspects.append(
            Suspect(
                symptom,
                title(group[0], first),
                first.site,
                group,
                first.kind,
                statistics={"cosine": best},
                records=tuple(r for r, _ in calls_there),
            )
        )
    return suspects
