"""Identity across a guilty region: from the last tensor before it to the most similar tensor after it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..record.operations import COPIES, EXITS
from ..record.values import Record, Trace, Value
from ..suspect import Analysis, Asks, Suspect
from .rules import INPUT, Bridge, Group, fitted

# Least correlation between what goes into a region and what comes out for the identity to stand in for it. Ours.
ALIKE = 0.3


def main_input(record: Record) -> Value | None:
    """The input that the operation transforms: the first that carries a gradient."""
    return next((v for v in record.inputs if v.edge is not None and v.data.is_floating_point()), None)


def bridges_across(analysis: Analysis, guilty: list[Suspect]) -> tuple[list[Bridge], dict[Bridge, float]]:
    """A bridge for each guilty operation that has one, and their correlations."""
    found: dict[Bridge, float] = {}
    for s in guilty:
        if s.symptom.asks is Asks.FINITE or not s.records:
            continue
        if s.symptom.asks is Asks.REOPEN:
            bridge = _exit_bridge(analysis) or _way_round(analysis, guilty)
        else:
            bridge = _region_bridge(analysis, s.records[0])
        if bridge is not None and bridge[0].target not in {b.target for b in found}:
            found[bridge[0]] = bridge[1]
    # A region inside another one is bridged by the outer one alone.
    return list(found), found


def dependents(records: list[Record], start: int) -> list[Record]:
    """Operations that use, directly or not, what `records[start]` made."""
    reached = {start}
    found = []
    for r in records[start + 1 :]:
        if any(v.producer in reached for v in r.inputs):
            reached.add(r.index)
            found.append(r)
    return found


def source_of(analysis: Analysis, value: Value) -> tuple[Group, int] | None:
    """Which operation made a value, and as which of its results."""
    if value.from_input:
        return INPUT, 0
    if value.producer < 0:
        return None
    producer = analysis.base.records[value.producer]
    for n, made in enumerate(producer.outputs):
        if made.data.shape == value.data.shape and torch.equal(made.data, value.data):
            return producer.group, n
    return None


def _region_bridge(analysis: Analysis, first: Record) -> tuple[Bridge, float] | None:
    value = main_input(first)
    if value is None:
        return None
    source = source_of(analysis, value)
    if source is None:
        return None
    ends = [first, *dependents(analysis.base.records, first.index)[:60]]
    best = best_end(value.data, ends)
    if best is None:
        return None
    end, correlation, slope, fit = best
    return Bridge(source[0], end.group, slope, source[1], fit=fit), correlation


def best_end(
    data: Tensor, ends: list[Record], analysis: Analysis | None = None
) -> tuple[Record, float, float, tuple] | None:
    """The result that is most like `data`; with an analysis, each result is averaged over its draws."""
    best = None
    runs = [{r.key: r for r in trace.records} for trace in analysis.draws] if analysis else []
    for end in ends:
        for n, made in enumerate(end.outputs):
            if not made.data.is_floating_point():
                continue
            twins = [run[end.key].outputs[n].data for run in runs if end.key in run]
            twins = [t for t in twins if t.shape == made.data.shape]
            made_data = torch.stack(twins).mean(0) if twins else made.data
            alike = _likeness(data, made_data)
            if alike is None or alike[0] <= ALIKE:
                continue
            if analysis is None:
                if best is None or alike[0] > best[1] + 0.02:
                    best = (end, *alike)
                continue
            # Averaged over draws, the end of the region is where the expectation is the source itself, factor one.
            source = fitted(data, alike[2], made_data.shape).double()
            factor = float((source * made_data.double()).sum() / source.square().sum())
            if best is None or abs(factor - 1) < abs(best[2] - 1):
                best = (end, alike[0], factor, alike[2])
    return best


def _likeness(source: Tensor, target: Tensor) -> tuple[float, float, tuple] | None:
    """Best correlation over the ways to shape the source like the target, the regression slope, and that way."""
    fits: list[tuple] = []
    if source.shape == target.shape:
        fits.append(("same",))
    elif source.numel() == target.numel():
        if source.ndim == target.ndim <= 4:
            fits += [
                ("permute", p)
                for p in itertools.permutations(range(source.ndim))
                if tuple(source.shape[i] for i in p) == tuple(target.shape)
            ]
        fits.append(("same",))
    elif source.ndim == target.ndim == 4 and source.shape[:2] == target.shape[:2]:
        fits.append(("resize",))
    best = None
    for fit in fits:
        a = fitted(source, fit, target.shape).double().flatten()
        b = target.double().flatten()
        a, b = a - a.mean(), b - b.mean()
        size = a.norm() * b.norm()
        if size > 0:
            correlation, slope = float((a @ b) / size), float((a @ b) / (a @ a))
            if best is None or abs(correlation) > best[0]:
                best = (abs(correlation), slope, fit)
    return best


@dataclass(frozen=True, eq=False)
class Crossing:
    """Where tensors leave what autograd sees, and where they come back.

    **Fields**
    - `source`, `pairing`, `argument`: as of `Bridge`.
    - `first`: the operation that brings the first of them back, in the base run.
    - `last`: a later one whose result stands for what came back, or None for `first` itself.
    - `alone`: `first` is the whole hidden part, from what it is given to what it gives; then `source` is not used.
    """

    source: Group
    first: Record
    pairing: str
    argument: int | None = None
    last: Record | None = None
    alone: bool = False

    def ends(self, trace: Trace) -> tuple[list[Tensor], list[Tensor]]:
        """What left and what came back in a run, in order."""
        end = self.last or self.first
        back = [r for r in trace.records if r.group == end.group]
        if self.alone:
            given = [main_input(r) for r in trace.records if r.group == self.first.group]
            left = [v.data for v in given if v is not None]
        else:
            left = [r.inputs[0].data for r in trace.records if r.group == self.source] or [trace.x.detach()]
        arrived = [r.outputs[0] if self.argument is None else r.inputs[self.argument] for r in back]
        return left, [v.data for v in arrived]

    def bridge(self, stand_in: Callable[[Tensor], Tensor]) -> Bridge:
        """The whole crossing differentiated as `stand_in`."""
        target = (self.last or self.first).group
        return Bridge(
            self.source,
            target,
            1.0,
            0,
            self.pairing,
            argument=self.argument,
            stand_in=stand_in,
            alone=self.alone,
        )


def exit_crossing(analysis: Analysis) -> Crossing | None:
    """Connects the tensors that left torch with those that came back, by their number."""
    records = analysis.base.records
    exits = [r for r in records if r.name in EXITS and r.inputs and r.inputs[0].data.is_floating_point()]
    moved = [{r.key: r for r in trace.records} for trace in analysis.moved.values()]

    def changed(r: Record, n: int, made: bool) -> bool:
        before = (r.outputs if made else r.inputs)[n]
        for by_key in moved:
            after = by_key.get(r.key)
            values = [] if after is None else (after.outputs if made else after.inputs)
            if n < len(values) and (
                values[n].data.shape != before.data.shape or not torch.equal(values[n].data, before.data)
            ):
                return True
        return False

    entries = []
    for r in records[exits[0].index if exits else 0 :]:
        made_here = r.kind == "source" or (r.name in COPIES and not r.inputs)
        if made_here and any(changed(r, n, True) for n in range(len(r.outputs))):
            entries.append(r)
        elif _unseen_argument(r, changed) is not None:
            entries.append(r)  # a tensor of unseen origin, known by its first use
    if not entries:
        return None
    batch = len(analysis.base.logits)
    out_group = exits[-1].group if exits else INPUT  # nobody saw it leave: then from the input
    leaving = sum(r.group == out_group for r in exits) or 1
    arriving = sum(r.group == entries[0].group for r in entries)
    if leaving == arriving:
        pairing = "each"
    elif leaving == 1 and arriving == batch:
        pairing = "item"
    elif arriving == 1 and leaving == batch:
        pairing = "stack"
    else:
        return None
    return Crossing(out_group, entries[0], pairing, _unseen_argument(entries[0], changed))


def _exit_bridge(analysis: Analysis) -> tuple[Bridge, float] | None:
    """The identity across a crossing, where what came back is like what left."""
    crossing = exit_crossing(analysis)
    if crossing is None:
        return None
    left, _ = crossing.ends(analysis.base)
    first, pairing = crossing.first, crossing.pairing
    data = torch.stack(left) if pairing == "stack" else left[0][0] if pairing == "item" else left[0]
    if crossing.argument is not None:
        alike = _likeness(data, first.inputs[crossing.argument].data)
        if alike is not None and alike[0] > ALIKE:
            return Bridge(
                crossing.source, first.group, alike[1], 0, pairing, alike[2], crossing.argument
            ), alike[0]
    best = best_end(data, [first, *dependents(analysis.base.records, first.index)[:20]])
    if best is None:
        return None
    end, correlation, slope, fit = best
    return Bridge(crossing.source, end.group, slope, 0, pairing, fit), correlation


def _way_round(analysis: Analysis, guilty: list[Suspect]) -> tuple[Bridge, float] | None:
    """From the input to the last cut that is like it and leads on, where not even the graph without cuts leads back.

    An optimiser inside the network, for instance, moves a parameter that only holds the same numbers as the image.
    """
    base = analysis.base

    def leads_on(place: GradientEdge | None) -> bool:
        if place is None or not base.logits.requires_grad:
            return False
        (whole,) = torch.autograd.grad(base.logits.sum(), (place,), retain_graph=True, allow_unused=True)
        return whole is not None and bool(whole.any())

    if leads_on(get_gradient_edge(base.x)):
        return None
    cuts = {r.index: r for s in guilty if s.symptom.asks is Asks.REOPEN for r in s.records}
    for n in sorted(cuts, reverse=True):
        best = best_end(base.x.detach(), [cuts[n]])
        if best is not None and leads_on(cuts[n].outputs[0].edge):
            end, correlation, slope, fit = best
            return Bridge(INPUT, end.group, slope, fit=fit), correlation
    return None


def _unseen_argument(r: Record, changed: Callable[[Record, int, bool], bool]) -> int | None:
    """Place among the tensor arguments of one that no operation made, although it depends on the input."""
    for n, v in enumerate(r.inputs):
        # What asks for a gradient itself is optimised inside the network: a stand-in would take its gradient away.
        if v.producer < 0 and not v.from_input and v.fixed and v.edge is None and changed(r, n, False):
            return n
    return None
