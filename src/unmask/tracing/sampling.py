"""Operations that draw: what they lose of the gradient is randomness, not a shattered function."""

from __future__ import annotations

from .changes import same
from .recorder import Trace
from .suspects import Group


def drawn(base: Trace, other: Trace, origins: set[Group]) -> set[int]:
    """Operations that lose a gradient only because they draw: `multinomial(p)`, or `rand_like(h) < p`.

    Randomness is their name; rounding a noisy input is not among them.
    """
    after = {r.key: r for r in other.records}
    found = {r.index for r in base.records if r.group in origins}
    for r in base.records:
        twin = after.get(r.key)
        if twin is None or len(r.inputs) != 2 or any(v.data.is_floating_point() for v in r.outputs):
            continue
        noise = [
            a.edge is None and not same(a.data, b.data) for a, b in zip(r.inputs, twin.inputs, strict=False)
        ]
        if any(noise):
            found.add(r.index)
    return found
