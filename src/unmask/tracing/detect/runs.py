"""What every detector is given: the recorded runs, and what was learned from comparing them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from ...objectives import Labels
from ..intercept.operations import SATURATING
from ..record.values import Key, Trace
from ..suspect import Origin, Suspect, base_name
from .slopes import agreement, blocked, blocked_together, elementwise, examined, wraps

# Flat on both sides of a slope that is as honest as a line's: what counts is how much of the change is denied.
RAMPS = frozenset(("clamp", "clip", "hardtanh", "hardsigmoid"))


@dataclass(frozen=True)
class Slope:
    """What one operation's derivative is worth, beside the change that one moved run has seen.

    **Fields**
    - `cosine`: as of `agreement`; NaN where nothing can be said.
    - `stuck`: share of the change that the derivative denies, as of `blocked`.
    - `wraps`: it is a remainder, and a notable share of it jumps.
    - `together`: as of `blocked_together`, where it is the last of several operations that are one function.
    """

    cosine: float
    stuck: float
    wraps: bool
    together: tuple[float, float] = (0.0, 0.0)


def slopes(base: Trace, after: Trace, y: Labels) -> dict[Key, Slope]:
    """Of each operation whose tensors both runs have kept; both have been listened to (`flow.listen`)."""
    twins = {r.key: r for r in after.records}
    calls = Counter(r.group for r in base.records)
    found = {}
    for r in base.records:
        twin = twins.get(r.key)
        if twin is None or not (examined(r) and examined(twin)):
            continue
        # Where the images came alone, the first dimension of what they became means nothing.
        alone = calls[r.group] >= len(y) > 1
        measured = r.kind != "torch" or elementwise(r)
        by_size = base_name(r) not in SATURATING or base_name(r) in RAMPS
        found[r.key] = Slope(
            agreement(r, twin, batch=1 if alone else len(y)) if measured else float("nan"),
            blocked(r, twin, by_size=by_size) if r.kind == "torch" and elementwise(r) else 0.0,
            wraps(r, twin),
            blocked_together(r, twin, base, after) if r.kind == "torch" else (0.0, 0.0),
        )
    return found


@dataclass(frozen=True, eq=False)
class Runs:
    """Recorded runs of one network on a few images.

    **Fields**
    - `base`: on the images; `moved`: on moved images, by the share of epsilon (`record.compare.SCALES`, `EXCHANGED`).
    - `y`: labels `[batch]`.
    - `slopes`: what the derivative of each examined operation says of each moved run, by the share of epsilon.
    - `controlled`: equal seeds give equal runs, so that differences mean something.
    - `lost`: the places that lose the gradient, which what else is seen may follow from.
    - `origins`: where randomness enters.
    - `draws`: indices of the draws that the input steers, where the gradient has another way beside them.
    """

    base: Trace
    moved: dict[float, Trace]
    y: Tensor
    slopes: dict[float, dict[Key, Slope]] = field(default_factory=dict)
    controlled: bool = True
    lost: tuple[Suspect, ...] = ()
    origins: tuple[Origin, ...] = ()
    draws: frozenset[int] = frozenset()
