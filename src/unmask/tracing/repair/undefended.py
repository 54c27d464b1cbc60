"""The undefended pass of a network that drops or scales neurons at random."""

from __future__ import annotations

from ..suspect import Analysis
from .regions.likeness import best_end, dependents, main_input, source_of
from .rules import Bridge, Group, PassThrough, Rule


def undefended(analysis: Analysis) -> tuple[list[Bridge], dict[Group, Rule]]:
    """Skips what randomness does to a tensor: dropout passes straight through, `h * mask / q` becomes `h`."""
    bridges: dict[Group, Bridge] = {}
    straight: dict[Group, Rule] = {}
    records = analysis.base.records
    groups = {o.group for o in analysis.origins}
    for r in records:
        if r.group not in groups:
            continue
        value = main_input(r)
        if (
            value is not None
            and r.outputs
            and r.outputs[0].shape == value.shape
            and r.name.endswith("dropout")
        ):
            straight[r.group] = PassThrough()
            continue
        tainted = {r.index}
        for later in dependents(records, r.index)[:30]:
            clean = [v for v in later.inputs if v.producer not in tainted and v.carries]
            tainted.add(later.index)
            made = later.outputs[0] if later.outputs else None
            match = next(
                (
                    v
                    for v in clean
                    if (made is not None and v.shape == made.shape and v.producer != -1) or v.from_input
                ),
                None,
            )
            if match is None or made is None or not made.floating or match.shape != made.shape:
                continue
            source = source_of(analysis, match)
            if source is None:
                continue
            best = best_end(match.data, [later, *dependents(records, later.index)[:6]], analysis)
            if best is not None:
                end, _, slope, fit = best
                bridges.setdefault(end.group, Bridge(source[0], end.group, slope, source[1], fit=fit))
                break
    return list(bridges.values()), straight
