"""From suspects to candidate repairs. Diagnosis proposes; the audit's race decides."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .recorder import COPIES, EXITS, Record, Value
from .rewrite import (
    INPUT,
    Bridge,
    Gain,
    Group,
    Keep,
    PassThrough,
    Redifferentiate,
    Rewrite,
    Rule,
    Smooth,
    fitted,
)
from .surrogates import SATURATING, SMOOTH
from .suspects import Analysis, Suspect

# Least correlation between what goes into a region and what comes out for the identity to stand in for it. Ours.
ALIKE = 0.3
# Largest typical input of a saturating function that still has a useful derivative. Ours.
LIVELY = 2.0


@dataclass(frozen=True)
class Repair:
    """One way of rewriting the backward pass, and what it does at each suspect, in words for the report."""

    name: str
    rewrite: Rewrite
    at: dict[Group, str] = field(default_factory=dict)


def propose(analysis: Analysis) -> list[Repair]:
    """Candidate repairs, simplest first.

    Smooth stand-ins at each guilty operation, identity across each guilty region, and, for randomness that scales or
    drops neurons, the undefended pass.
    """
    guilty = [s for s in analysis.suspects if s.symptom not in ("random", "underflow", "effect")]
    heal = any(s.symptom == "cut" for s in guilty)
    rules, words = _rules(guilty)
    bridges, bridged = _bridges(analysis, guilty)
    repairs = []
    exits = tuple(b for b in bridges if b.source[0] in EXITS)
    if rules or heal:
        crossing = {b.target: f"bridge, correlation {w:.2f}" for b, w in bridged.items() if b in exits}
        repairs.append(Repair("smooth", Rewrite(rules, exits, heal), {**words, **crossing}))
        if any(isinstance(r, Smooth) and r.width > 0 for r in rules.values()):
            wide = {g: Smooth(r.width * 4) if isinstance(r, Smooth) else r for g, r in rules.items()}
            narrow = {g: Smooth(r.width / 4) if isinstance(r, Smooth) else r for g, r in rules.items()}
            repairs.append(Repair("smooth, wide", Rewrite(wide, exits, heal), words))
            repairs.append(Repair("smooth, narrow", Rewrite(narrow, exits, heal), words))
    if bridges:
        at = {
            **words,
            **{b.target: f"identity across the region, correlation {w:.2f}" for b, w in bridged.items()},
        }
        repairs.append(Repair("identity", Rewrite(rules, tuple(bridges), heal), at))
    undefended, straight = _undefended(analysis)
    if undefended or straight:
        both = {**rules, **straight}
        draws = (o.group for o in analysis.origins)
        at = dict.fromkeys(
            (*straight, *(b.target for b in undefended), *draws),
            "the undefended pass: the forward keeps the dropped neurons",
        )
        repairs.append(Repair("undefended", Rewrite(both, (*exits, *undefended), heal), {**words, **at}))
        if bridges:
            taken = {b.target for b in undefended}
            rest = tuple(b for b in bridges if b.target not in taken)
            repairs.append(
                Repair("undefended, identity", Rewrite(both, (*rest, *undefended), heal), {**words, **at})
            )
    return repairs


def _rules(guilty: list[Suspect]) -> tuple[dict[Group, Rule], dict[Group, str]]:
    rules: dict[Group, Rule] = {}
    words: dict[Group, str] = {}
    for s in guilty:
        rule, word = _rule(s)
        if rule is not None and s.group not in rules:
            rules[s.group] = rule
        if word:
            words.setdefault(s.group, word)
    return rules, words


def _rule(s: Suspect) -> tuple[Rule | None, str]:
    name = s.group[0] if s.group[0].startswith("__") else s.group[0].rstrip("_")
    if s.symptom == "cut":
        return None, "the gradient goes on behind the cut"
    if s.kind == "function":
        return Redifferentiate(), "its own forward is differentiated instead of the backward it declares"
    if s.kind == "hook":
        return Keep(), "its backward hooks are left out"
    if s.kind == "opaque":
        return PassThrough(), "straight through the whole opaque part"
    if s.symptom == "non_finite":
        return Keep(), "non-finite gradients are kept finite"
    if s.symptom in ("saturated", "vanished"):
        if name in SATURATING:
            gain = _gain(s)
            return Gain(gain), f"gain reduced to {gain:.2g} in the backward pass"
        return None, ""
    if name in SMOOTH:
        width = _width(s.records[0])
        return Smooth(width), f"smooth stand-in of width {width:.2g}"
    return PassThrough(), "straight through"


def _main(record: Record) -> Value | None:
    """The input that the operation transforms: the first that carries a gradient."""
    return next((v for v in record.inputs if v.edge is not None and v.data.is_floating_point()), None)


def _width(record: Record) -> float:
    values = [v.data for v in record.inputs if v.data.is_floating_point()]
    if len(values) > 1 and record.name.strip("_") in ("gt", "ge", "lt", "le", "eq", "ne", "greater", "less"):
        spread = (values[0] - values[1]).std()
    elif record.name.strip("_") in ("argmax", "argmin", "max", "min", "topk"):
        spread = values[0].std() if values else torch.tensor(1.0)
    else:
        spread = values[0].std() if values else torch.tensor(1.0)
    width = float(spread) / 4
    return width if width > 0 and width == width else 0.1


def _gain(s: Suspect) -> float:
    sizes = [float(v.data.double().square().mean().sqrt()) for r in s.records if (v := _main(r)) is not None]
    return min(1.0, LIVELY / max(*sizes, 1e-12)) if sizes else 1.0


# --- identity across a region --------------------------------------------------------------------------------------


def _bridges(analysis: Analysis, guilty: list[Suspect]) -> tuple[list[Bridge], dict[Bridge, float]]:
    found: dict[Bridge, float] = {}
    for s in guilty:
        if s.symptom == "non_finite" or not s.records:
            continue
        bridge = _exit_bridge(analysis) if s.symptom == "cut" else _region_bridge(analysis, s.records[0])
        if bridge is not None and bridge[0].target not in {b.target for b in found}:
            found[bridge[0]] = bridge[1]
    # A region inside another one is bridged by the outer one alone.
    return list(found), found


def _dependents(records: list[Record], start: int) -> list[Record]:
    """Operations that use, directly or not, what `records[start]` made."""
    reached = {start}
    found = []
    for r in records[start + 1 :]:
        if any(v.producer in reached for v in r.inputs):
            reached.add(r.index)
            found.append(r)
    return found


def _source_of(analysis: Analysis, value: Value) -> tuple[Group, int] | None:
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
    value = _main(first)
    if value is None:
        return None
    source = _source_of(analysis, value)
    if source is None:
        return None
    ends = [first, *_dependents(analysis.base.records, first.index)[:60]]
    best = _best_end(value.data, ends)
    if best is None:
        return None
    end, correlation, slope, fit = best
    return Bridge(source[0], end.group, slope, source[1], fit=fit), correlation


def _best_end(
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


def _exit_bridge(analysis: Analysis) -> tuple[Bridge, float] | None:
    """Connects the tensors that left torch with those that came back, by what they hold."""
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
    unseen = _unseen_argument(entries[0], changed)
    out_group = exits[-1].group if exits else INPUT  # nobody saw it leave: then from the input
    leaving = [r.inputs[0].data for r in exits if r.group == out_group] or [analysis.base.x.detach()]
    candidates = [entries[0], *_dependents(records, entries[0].index)[:20]]
    arriving = [r for r in entries if r.group == entries[0].group]
    if len(leaving) == len(arriving):
        pairing, data = "each", leaving[0]
    elif len(leaving) == 1 and len(arriving) == batch:
        pairing, data = "item", leaving[0][0]
    elif len(arriving) == 1 and len(leaving) == batch:
        pairing, data = "stack", torch.stack(leaving)
    else:
        return None
    if unseen is not None:
        alike = _likeness(data, entries[0].inputs[unseen].data)
        if alike is not None and alike[0] > ALIKE:
            return Bridge(out_group, entries[0].group, alike[1], 0, pairing, alike[2], unseen), alike[0]
    best = _best_end(data, candidates)
    if best is None:
        return None
    end, correlation, slope, fit = best
    return Bridge(out_group, end.group, slope, 0, pairing, fit), correlation


def _unseen_argument(r: Record, changed: Callable[[Record, int, bool], bool]) -> int | None:
    """Place among the tensor arguments of one that no operation made, although it depends on the input."""
    for n, v in enumerate(r.inputs):
        if v.producer < 0 and not v.from_input and v.fixed and changed(r, n, False):
            return n
    return None


# --- randomness that drops or scales neurons -----------------------------------------------------------------------


def _undefended(analysis: Analysis) -> tuple[list[Bridge], dict[Group, Rule]]:
    """Skips what randomness does to a tensor: dropout passes straight through, `h * mask / q` becomes `h`."""
    bridges: dict[Group, Bridge] = {}
    straight: dict[Group, Rule] = {}
    records = analysis.base.records
    groups = {o.group for o in analysis.origins}
    for r in records:
        if r.group not in groups:
            continue
        value = _main(r)
        if (
            value is not None
            and r.outputs
            and r.outputs[0].data.shape == value.data.shape
            and r.name.endswith("dropout")
        ):
            straight[r.group] = PassThrough()
            continue
        tainted = {r.index}
        for later in _dependents(records, r.index)[:30]:
            clean = [v for v in later.inputs if v.producer not in tainted and v.edge is not None]
            tainted.add(later.index)
            made = later.outputs[0].data if later.outputs else None
            match = next(
                (
                    v
                    for v in clean
                    if (made is not None and v.data.shape == made.shape and v.producer != -1) or v.from_input
                ),
                None,
            )
            if (
                match is None
                or made is None
                or not made.is_floating_point()
                or match.data.shape != made.shape
            ):
                continue
            source = _source_of(analysis, match)
            if source is None:
                continue
            best = _best_end(match.data, [later, *_dependents(records, later.index)[:6]], analysis)
            if best is not None:
                end, _, slope, fit = best
                bridges.setdefault(end.group, Bridge(source[0], end.group, slope, source[1], fit=fit))
                break
    return list(bridges.values()), straight
