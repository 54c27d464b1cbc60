"""Where tensors leave what autograd sees and come back, and the identity across such a trip.

By the number of those that left and came back, where both were seen; else by what they hold: nearly equal values on
both sides of a trip are taken for the same ones, whatever carried them (bytes, text, a file, somebody's memory).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...intercept.operations import COPIES, CUTS, EXITS, WRITES
from ...record.compare import equal, twins_of, unaccounted
from ...record.values import Record, Trace
from ...suspect import Analysis
from ..rules import INPUT, Bridge, Group, fitted
from .likeness import ALIKE, best_end, dependents, likeness, main_input
from .neighbourhood import sharpened

# Most operations among which the two ends of a trip are looked for. Ours.
LOOKED_AT = 300
# How many operations after the place where tensors come back one of them may be like what left. Ours.
BEYOND = 20


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

    def ended_by(self, r: Record) -> bool:
        """Whether `ends` looks at an operation."""
        return r.group in (self.source, self.first.group, (self.last or self.first).group)

    def bridge(self, surrogate: Callable[[Tensor], Tensor]) -> Bridge:
        """The whole crossing differentiated as `surrogate`."""
        target = (self.last or self.first).group
        return Bridge(
            self.source,
            target,
            1.0,
            0,
            self.pairing,
            argument=self.argument,
            surrogate=surrogate,
            alone=self.alone,
        )


def trips_across(analysis: Analysis) -> dict[Bridge, float]:
    """The identity across the trip out of torch and back, where there is one, and its correlation."""
    found = [b for b in (_exit_bridge(analysis), _found_again(analysis)) if b is not None]
    return dict([max(found, key=lambda b: round(b[1], 2))]) if found else {}


def exit_crossing(analysis: Analysis) -> Crossing | None:
    """Connects the tensors that left torch with those that came back, by their number."""
    records = analysis.base.records
    exits = [r for r in records if r.name in EXITS and r.inputs and r.inputs[0].floating]
    moved = [{r.key: r for r in trace.records} for trace in analysis.moved.values()]

    def changed(r: Record, n: int, made: bool) -> bool:
        before = (r.outputs if made else r.inputs)[n]
        for by_key in moved:
            after = by_key.get(r.key)
            values = [] if after is None else (after.outputs if made else after.inputs)
            if n < len(values) and not equal(values[n], before):
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
        alike = likeness(data, first.inputs[crossing.argument].data)
        if alike is not None and alike[0] > ALIKE:
            bridge = Bridge(crossing.source, first.group, alike[1], 0, pairing, alike[2], crossing.argument)
            return _sharper(bridge, alike[0], *crossing.ends(analysis.base))
    best = best_end(data, [first, *dependents(analysis.base.records, first.index)[:BEYOND]])
    if best is None:
        return None
    end, correlation, slope, fit = best
    bridge = Bridge(crossing.source, end.group, slope, 0, pairing, fit)
    return _sharper(bridge, correlation, *replace(crossing, last=end).ends(analysis.base))


def _sharper(
    bridge: Bridge, correlation: float, left: list[Tensor], back: list[Tensor]
) -> tuple[Bridge, float]:
    """The bridge with a filter in the place of the identity, where neighbours are mixed on the way."""
    if bridge.pairing == "stack":
        left = [torch.stack(left)]
    elif bridge.pairing == "item":
        left = list(left[0])
    if len(left) != len(back) or any(t.shape != back[0].shape or not t.is_floating_point() for t in back):
        return bridge, correlation
    if len(back) > 1:
        shaped = torch.stack([fitted(t, bridge.fit, back[0].shape) for t in left])
        found = sharpened(shaped, torch.stack(back), ("same",))
    else:
        found = sharpened(left[0], back[0], bridge.fit)
    if found is None:
        return bridge, correlation
    return replace(bridge, slope=1.0, fit=(*found[1][:-1], bridge.fit)), found[0]


def arrivals(analysis: Analysis) -> list[tuple[Record, list[int]]]:
    """Operations that are given something which depends on the input although no operation made it from the input."""
    base = analysis.base
    found = [
        (r, places)
        for r, places in unaccounted(base, twins_of(analysis.moved))
        # What is optimised inside the network needs its own gradient: a surrogate would take it away.
        if r.name not in WRITES
        and (r.name in CUTS or not base.differentiates or not any(r.inputs[n].carries for n in places))
    ]
    return found[:LOOKED_AT]


def _found_again(analysis: Analysis) -> tuple[Bridge, float] | None:
    """The identity across a trip on which nothing was seen: to what came back, from what it is most like.

    What came back is known by its first use, among the `arrivals`.
    """
    best: tuple[tuple[float, int], Bridge, list[Tensor], list[Tensor]] | None = None
    for r, places in arrivals(analysis):
        argument = places[0] if len(places) == 1 else None  # many, as in a stack of images: its result, then
        ends = [r.inputs[places[0]]] if argument is not None else r.outputs[:1]
        for end in ends:
            found = _most_like(analysis, end.data, r.index)
            if found is None:
                continue
            source, output, value, (correlation, slope, fit) = found
            rank = round(correlation, 2), -r.index
            if best is None or rank > best[0]:
                bridge = Bridge(source, r.group, slope, output, fit=fit, argument=argument)
                best = rank, bridge, [value], [end.data]
    return None if best is None else _sharper(best[1], best[0][0], *best[2:])


def _most_like(
    analysis: Analysis, data: Tensor, before: int
) -> tuple[Group, int, Tensor, tuple[float, float, tuple]] | None:
    """The result, of an operation on the way from the input, that is most like a tensor; the latest of several."""
    base = analysis.base
    made = [(INPUT, 0, base.x.detach())]
    for r in base.records[max(0, before - LOOKED_AT) : before]:
        made += [(r.group, n, v.data) for n, v in enumerate(r.outputs) if v.carries and v.floating]
    best = None
    for group, n, value in made:
        alike = likeness(value, data.to(value.dtype))
        if alike is not None and alike[0] > ALIKE and (best is None or alike[0] > best[3][0] - 0.005):
            best = group, n, value, alike
    return best


def _unseen_argument(r: Record, changed: Callable[[Record, int, bool], bool]) -> int | None:
    """Place among the tensor arguments of one that no operation made, although it depends on the input."""
    for n, v in enumerate(r.inputs):
        # What asks for a gradient itself is optimised inside the network: a surrogate would take its gradient away.
        if v.producer < 0 and not v.from_input and v.fixed and not v.carries and changed(r, n, False):
            return n
    return None
