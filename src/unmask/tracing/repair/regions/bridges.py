"""Identity across a guilty region: from the last tensor before it to the most similar tensor after it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ...pointwise import beginning
from ...record.values import Record, Trace
from ...suspect import FROM_INPUT, Analysis, Asks, Suspect
from ..rules import INPUT, Bridge
from .likeness import best_end, dependents, likeness, main_input, source_of

# How many operations after a suspect a region may end at. Ours.
REGION = 60
# How many operations before a draw what it follows may have been made otherwise, as sums of it are. Ours.
BEFORE = 4


def regions_across(analysis: Analysis, guilty: list[Suspect]) -> dict[Bridge, float]:
    """A bridge for each guilty operation that has one and is no cut, and its correlation."""
    found: dict[Bridge, float] = {}
    for s in guilty:
        if s.symptom.asks in (Asks.FINITE, Asks.REOPEN) or not s.records:
            continue
        bridge = _over_a_function(analysis, s) or _region_bridge(analysis, s.records[0])
        if bridge is not None and bridge[0].target not in {b.target for b in found}:
            found[bridge[0]] = bridge[1]
    # A region inside another one is bridged by the outer one alone.
    return found


def _region_bridge(analysis: Analysis, first: Record) -> tuple[Bridge, float] | None:
    ends = [first, *dependents(analysis.base.records, first.index)[:REGION]]
    for start in (first, *made_before(analysis, first)):
        value = main_input(start)
        source = None if value is None else source_of(analysis, value)
        best = None if value is None or source is None else best_end(value.data, ends)
        if source is not None and best is not None:
            end, correlation, slope, fit = best
            return Bridge(source[0], end.group, slope, source[1], fit=fit), correlation
    return None


def made_before(analysis: Analysis, first: Record) -> list[Record]:
    """Of a random network: the operations that made what `first` looks at, as a cumulative sum of the image.

    Places drawn by `searchsorted` of it are counted to something like the image, and not like the sum.
    """
    found: list[Record] = []
    value = main_input(first)
    while not analysis.deterministic and value is not None and value.producer >= 0 and len(found) < BEFORE:
        found.append(analysis.base.records[value.producer])
        value = main_input(found[-1])
    return found


def _over_a_function(analysis: Analysis, s: Suspect) -> tuple[Bridge, float] | None:
    """From where a function begins that several operations are to its last one, where together they are flat."""
    end = s.records[0]
    start = beginning(analysis.base.records, end) if s.symptom.asks is Asks.LESS_GAIN else None
    source = None if start is None else source_of(analysis, start)
    if start is None or source is None or start.kept is None:
        return None
    alike = likeness(start.data, end.outputs[0].data)
    return None if alike is None else (Bridge(source[0], end.group, alike[1], source[1]), alike[0])


def way_round(analysis: Analysis, guilty: list[Suspect]) -> dict[Bridge, float]:
    """From the input to the last cut that is like it and leads on, where not even the graph without cuts leads back.

    An optimiser inside the network, for instance, moves a parameter that only holds the same numbers as the image.
    """
    base = analysis.base
    if FROM_INPUT in analysis.leading:
        return {}
    cuts = {r.index: r for s in guilty if s.symptom.asks is Asks.REOPEN for r in s.records}
    for n in sorted(cuts, reverse=True):
        best = best_end(base.x.detach(), [cuts[n]])
        if best is not None and n in analysis.leading:
            end, correlation, slope, fit = best
            return {Bridge(INPUT, end.group, slope, fit=fit): correlation}
    return {}


def leading(base: Trace, suspects: Iterable[Suspect]) -> frozenset[int]:
    """The cuts behind which a gradient of the logits arrives: indices of operations, or `FROM_INPUT` alone.

    Nothing where no cut is suspected.
    """

    def leads_on(place: GradientEdge | None) -> bool:
        if place is None or not base.logits.requires_grad:
            return False
        (whole,) = torch.autograd.grad(base.logits.sum(), (place,), retain_graph=True, allow_unused=True)
        return whole is not None and bool(whole.any())

    cuts = {r.index: r for s in suspects if s.symptom.asks is Asks.REOPEN for r in s.records}
    if cuts and leads_on(get_gradient_edge(base.x)):
        return frozenset((FROM_INPUT,))
    return frozenset(n for n, r in cuts.items() if r.outputs and leads_on(r.outputs[0].edge))
