"""From suspects to candidate repairs. Diagnosis proposes; the audit's race decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch

from ..attention import ATTENTION
from ..intercept.operations import CLOSED, SATURATING
from ..pointwise import GATED
from ..record.values import Record
from ..squashing import logs_taken
from ..suspect import Analysis, Asks, Suspect
from .regions.bridges import regions_across, way_round
from .regions.crossings import trips_across
from .regions.curves import curves_along
from .regions.learned import Learned
from .regions.likeness import main_input
from .rules import (
    Bridge,
    Gain,
    Group,
    Keep,
    LogShares,
    Measure,
    PassThrough,
    Probabilities,
    Redifferentiate,
    Rewrite,
    Rule,
    Smooth,
)
from .surrogates import SMOOTH, base_name, typical_width
from .undefended import undefended

# Largest typical input of a saturating function that still has a useful derivative. Ours.
LIVELY = 2.0
# What is repaired at the operation itself.
AT_THE_PLACE = (Asks.REPLACE, Asks.REOPEN, Asks.LESS_GAIN, Asks.FINITE)
OWN = "its own forward is differentiated instead of the backward it declares"


@dataclass(frozen=True)
class Repair:
    """One way of rewriting the backward pass, and what it does at each suspect, in words for the report."""

    name: str
    rewrite: Rewrite
    at: dict[Group, str] = field(default_factory=dict)


def propose(analysis: Analysis, learned: Learned | None = None) -> list[Repair]:
    """Candidate repairs, simplest first; `learned` is a bridge that was fitted to this analysis.

    Smooth surrogates at each guilty operation, identity across each guilty region, and, for randomness that scales or
    drops neurons, the undefended pass.
    """
    guilty = analysis.asking(*AT_THE_PLACE)
    heal = bool(analysis.asking(Asks.REOPEN))
    rules, words = _rules(guilty)
    squashing = analysis.squashing
    if squashing is not None:
        rules[squashing.group] = Probabilities()
        words[squashing.group] = "the logits in front of the soft-max are differentiated"
    if analysis.asking(Asks.LESS_GAIN, Asks.FINITE):
        for r in logs_taken(analysis.base).values():
            rules[r.group] = LogShares()
            words[r.group] = _word_of_log(r)
    trips = trips_across(analysis) if heal else {}
    bridged = {**regions_across(analysis, guilty), **trips}
    if heal and not trips:
        bridged |= way_round(analysis, guilty)
    bridges, exits = tuple({b.target: b for b in bridged}.values()), tuple(trips)
    repairs = []
    if rules or heal:
        crossing = {b.target: f"bridge, correlation {w:.2f}" for b, w in trips.items()}
        repairs.append(
            Repair("smooth", Rewrite(rules, exits, heal, 1.0 if heal else None), {**words, **crossing})
        )
        if heal or any(isinstance(r, Smooth | Redifferentiate | Gain | LogShares) for r in rules.values()):
            for name, times in (("smooth, wide", 4.0), ("smooth, narrow", 0.25)):
                other = {g: _wider(r, times) for g, r in rules.items()}
                repairs.append(Repair(name, Rewrite(other, exits, heal, times if heal else None), words))
        if heal or any(isinstance(r, Smooth | Redifferentiate | Gain) for r in rules.values()):
            soft = Rewrite(rules, exits, True, 1.0 if heal else None, relaxed=True)
            repairs.append(Repair("relaxed", soft, {**words, **crossing}))
    if heal and analysis.base.differentiates:
        word = "the gradients that it takes of its own are differentiated, too"
        at = {**words, **{s.group: word for s in guilty if s.symptom.asks is Asks.REOPEN}}
        repairs.append(Repair("unrolled", Rewrite(rules, exits, heal, 1.0, unroll=True), at))
    if bridges:
        at = {
            **words,
            **{b.target: f"identity across the region, correlation {w:.2f}" for b, w in bridged.items()},
        }
        repairs.append(Repair("identity", Rewrite(rules, bridges, heal), at))
    for name, (word, along) in curves_along(analysis, guilty).items():
        at = {**words, **dict.fromkeys((b.target for b in along), word)}
        repairs.append(Repair(name, Rewrite(rules, (*exits, *along), heal), at))
    if learned is not None:
        bridge = learned.bridge
        word = (
            f"a learned surrogate, cosine {learned.cosine:.2f} between its slopes and the changes seen on held-out "
            "images"
        )
        at = {**words, **{s.group: word for s in guilty if s.symptom.hidden}}
        others = {g: rule for g, rule in rules.items() if g != bridge.target}
        repairs.append(Repair("learned", Rewrite(others, (bridge,), heal), at))
    repairs += _own_forwards(analysis, rules, exits, heal, words)
    repairs += _through_draws(analysis, rules, exits, words)
    dropped, straight = undefended(analysis)
    if dropped or straight:
        both = {**rules, **straight}
        draws = (o.group for o in analysis.origins)
        at = dict.fromkeys(
            (*straight, *(b.target for b in dropped), *draws),
            "the undefended pass: the forward keeps the dropped neurons",
        )
        repairs.append(Repair("undefended", Rewrite(both, (*exits, *dropped), heal), {**words, **at}))
        if bridges:
            taken = {b.target for b in dropped}
            rest = tuple(b for b in bridges if b.target not in taken)
            repairs.append(
                Repair("undefended, identity", Rewrite(both, (*rest, *dropped), heal), {**words, **at})
            )
    return repairs


def _word_of_log(r: Record) -> str:
    if base_name(r.name) in ("exp", "exp2"):
        return "the log of a sum of these is differentiated as such, however small they are"
    return "the log of the soft-max is differentiated as a log-soft-max, in 32 bits"


def _wider(rule: Rule, times: float) -> Rule:
    if isinstance(rule, Smooth):
        return Smooth(rule.width * times)
    if isinstance(rule, Gain | LogShares):
        return replace(rule, gain=min(1.0, rule.gain / times))
    return Redifferentiate(rule.soften * times) if isinstance(rule, Redifferentiate) else rule


def _own_forwards(
    analysis: Analysis,
    rules: dict[Group, Rule],
    exits: tuple[Bridge, ...],
    heal: bool,
    words: dict[Group, str],
) -> list[Repair]:
    """What custom functions compute, in the place of the backward that they declare, where nothing else suspects it."""
    declared = {s.group for s in analysis.asking(Asks.OWN_FORWARD)} - set(rules)
    word = dict.fromkeys(declared, OWN)
    return [
        Repair(
            name,
            Rewrite(
                {**rules, **{g: Redifferentiate(soften) for g in declared}},
                exits,
                heal,
                1.0 if heal else None,
            ),
            {**words, **word},
        )
        for name, soften in (("own forward", 1.0), ("own forward, narrow", 0.25))
        if declared
    ]


def _through_draws(
    analysis: Analysis, rules: dict[Group, Rule], exits: tuple[Bridge, ...], words: dict[Group, str]
) -> list[Repair]:
    """The slope of what is drawn on average, at each draw by the input that another way leads around."""
    drawn = analysis.asking(Asks.FOLLOW_DRAWS)
    if not drawn:
        return []
    own, said = _rules(drawn)
    # What steers a draw may be cut, or drawn without a graph: that is followed, too.
    found = [Repair("through draws", Rewrite({**own, **rules}, exits, heal_cuts=True), {**words, **said})]
    across = {b.target: (b, w) for b, w in regions_across(analysis, drawn).items()}
    if across:
        at = {t: f"identity across the region, correlation {w:.2f}" for t, (_, w) in across.items()}
        bridges = (*exits, *(b for b, _ in across.values()))
        rewrite = Rewrite({**own, **rules}, bridges, heal_cuts=True)
        found.append(Repair("through draws, identity", rewrite, {**words, **said, **at}))
    return found


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
    name = base_name(s.group[0])
    if s.symptom.asks is Asks.REOPEN and s.kind != "hook":
        return None, "the gradient goes on behind the cut"
    if s.records and s.records[0].saved_by_hooks:
        return Keep(), "what it saves for the way back is left as it was"
    if s.kind == "function":
        return Redifferentiate(), OWN
    if s.kind == "hook":
        return Keep(), "its backward hooks are left out"
    if s.kind in CLOSED and not _changes_shape(s):
        return PassThrough(), "straight through the whole opaque part"
    if s.symptom.asks is Asks.FINITE:
        return Keep(), "non-finite gradients are kept finite"
    if s.symptom.asks is Asks.LESS_GAIN:
        if name in SATURATING | GATED | ATTENTION:
            gain = _gain(s)
            return Gain(gain), f"gain reduced to {gain:.2g} in the backward pass"
        return None, ""
    if name in SMOOTH:
        width = typical_width(name, [v.data for v in s.records[0].inputs if v.floating])
        return Smooth(width), f"smooth surrogate of width {width:.2g}"
    if _changes_shape(s):
        return Measure(), "a slope measured on this operation alone"
    return PassThrough(), "straight through"


def _changes_shape(s: Suspect) -> bool:
    """Whether the identity is no surrogate for an operation's first result."""
    value = main_input(s.records[0])
    made = s.records[0].outputs
    return value is None or not made or made[0].shape != value.shape


def _gain(s: Suspect) -> float:
    values = [v.data for r in s.records if (v := main_input(r)) is not None]
    scores = [t[t > torch.finfo(t.dtype).min] for r in s.records for t, _ in r.shares]
    sizes = [float(t.double().square().mean().sqrt()) for t in scores or values]
    return min(1.0, LIVELY / max(*sizes, 1e-12)) if sizes else 1.0
