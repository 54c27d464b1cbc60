"""Operations that draw: what they lose of the gradient is randomness, not a shattered function."""

from __future__ import annotations

from ..intercept.operations import CUTS, EXITS
from ..record.compare import Twins, changed, equal, moves
from ..record.values import Record, Trace
from ..suspect import Group, Suspect, title
from ..symptoms.random import DRAWN
from .runs import Runs
from .slopes import zero_everywhere


def drawn(base: Trace, other: Trace, origins: set[Group], twins: Twins) -> set[int]:
    """Operations that lose a gradient only because they draw: `multinomial(p)`, or `rand_like(h) < p`.

    Randomness is their name; rounding a noisy input is not among them.

    **Arguments**
    - `other`: a run on the same input under another seed.
    - `twins`: runs on moved inputs, under the seed of `base`.
    """
    after = {r.key: r for r in other.records}
    found = {r.index for r in base.records if r.group in origins}
    for r in base.records:
        twin = after.get(r.key)
        if twin is None or len(r.inputs) != 2 or any(v.floating for v in r.outputs):
            continue
        noise = [
            not equal(a, b) and not moves(r, n, twins)
            for n, (a, b) in enumerate(zip(r.inputs, twin.inputs, strict=False))
        ]
        if any(noise):
            found.add(r.index)
    return found


def beside_the_way(base: Trace, other: Trace, noisy: set[int], twins: Twins) -> set[int]:
    """Operations that the input reaches, or that reach the logits, through draws alone.

    What `multinomial(p.detach())` cuts, and what a cast of its counts loses, no gradient could have used: there is
    none through a draw. That the draw itself has none is what calling it random says.

    **Arguments**
    - `noisy`: what `drawn` found.
    """
    after = {r.key: r for r in other.records}
    # One call of a layer's code sees it draw; that later layers get other inputs then hides it in theirs.
    sampling = {r.group for r in base.records if r.index in noisy or _samples(r, after.get(r.key))}
    draws = {r.index for r in base.records if r.group in sampling and _gives_no_gradient(r)}
    behind: set[int] = set()
    uses: dict[int, list[Record]] = {}
    for r in base.records:
        moving = [v for n, v in enumerate(r.inputs) if moves(r, n, twins)]
        for v in moving:
            uses.setdefault(v.producer, []).append(r)
        if moving and all(v.producer in draws or v.producer in behind for v in moving):
            behind.add(r.index)
    ahead: set[int] = set()
    idle: set[int] = set()  # used only by what hands nothing on, such as `p.sum() > 0`
    for r in reversed(base.records):
        leads = {u.index for u in uses.get(r.index, []) if _matters(u, twins)} - idle
        if r.index in uses and not leads:
            idle.add(r.index)
        elif leads and leads <= draws | ahead:
            ahead.add(r.index)
    return draws | behind | ahead


def by_the_input(base: Trace, noisy: set[int], twins: Twins) -> frozenset[int]:
    """Draws that the input steers and whose result hands no gradient back.

    Where a `detach` of the user's own comes before one, it counts unless what is drawn is a mask: then the gradient is
    meant to go through what is masked alone, as in stochastic pruning.

    **Arguments**
    - `noisy`: what `drawn` found.
    """
    constant: set[int] = set()  # made of what was detached alone
    found = []
    for r in base.records:
        carrying = [v for v in r.inputs if v.carries]
        live = [v for v in carrying if v.producer not in constant]
        if r.name in CUTS or (carrying and not live):
            constant.add(r.index)
        if r.index in noisy and carrying and _gives_no_gradient(r) and _matters(r, twins):
            found.append(r)
    return frozenset(r.index for r in found if r.index not in constant or not _masks(base, r, constant))


def _masks(base: Trace, draw: Record, constant: set[int]) -> bool:
    """Whether what is drawn meets, element by element, a tensor of its shape that leads back to the input by itself."""
    made = {draw.index}
    for r in base.records[draw.index + 1 :]:
        if not any(v.producer in made for v in r.inputs):
            continue
        others = [v for v in r.inputs if v.carries and v.producer not in made | constant]
        if any(v.shape == out.shape for v in others for out in r.outputs):
            return True
        if not others:
            made.add(r.index)
    return False


def draws_beside(runs: Runs, found: list[Suspect]) -> list[Suspect]:
    """Every draw by the input, where the gradient has another way: whether an attack lacks this one, a race says."""
    records = [runs.base.records[n] for n in sorted(runs.draws)]
    groups = {r.group: tuple(other for other in records if other.group == r.group) for r in records}
    known = {s.group for s in found if s.symptom.mechanism == DRAWN.mechanism}
    return [
        Suspect(DRAWN, title(group[0], rs[0]), rs[0].site, group, rs[0].kind, records=rs)
        for group, rs in groups.items()
        if group not in known
    ]


def _gives_no_gradient(r: Record) -> bool:
    return all(not v.carries for v in r.outputs) or zero_everywhere(r)


def _samples(r: Record, twin: Record | None) -> bool:
    """Whether equal inputs gave other results under another seed."""
    if twin is None or len(twin.inputs) != len(r.inputs) or not r.outputs:
        return False
    return all(equal(a, b) for a, b in zip(r.inputs, twin.inputs, strict=True)) and changed(r, twin)


def _matters(r: Record, twins: Twins) -> bool:
    """Whether an operation hands on that its input changed; a way out of torch always may."""
    return r.name in EXITS or any(changed(r, run.get(r.key)) for run in twins.values())
