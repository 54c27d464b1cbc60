"""Operations that lose the gradient of their inputs, and through which the logits change all the same.

An operation whose gradient is lost is a suspect only if a notable share of the change of the logits passes through it:
hold its result still and see what is missing. A ReLU written as `x * (x > 0)` loses the gradient of its comparison
too, but nothing of the first order passes there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch

from ...classifier import Classifier
from ..intercept.operations import CLOSED, COPIES, CUTS, EXITS, GRADIENTS, SATURATING, UNSET
from ..record.compare import EXCHANGED, SCALES, Twins, changed, decided_otherwise, twins_of, unaccounted
from ..record.freeze import share_through
from ..record.keeping import Recording
from ..record.values import Key, Record, Trace
from ..suspect import Group, Suspect, Symptom, base_name, title
from ..symptoms.dying import SATURATED
from ..symptoms.lost import CUT, DISCRETE, EFFECT, OPAQUE, ZERO
from ..symptoms.wrong import WRONG
from .jump import Jump, chaos
from .runs import Slope
from .slopes import deaf_to_one, taken_for_constant, zero_everywhere

# Least share of the change of the logits that must pass through an operation before losing it counts. Ours.
NOTABLE = 0.25

Groups = dict[tuple[Symptom, Group], list[Record]]


def lost_gradients(
    recording: Recording,
    base: Trace,
    moved: dict[float, Trace],
    slopes: dict[float, dict[Key, Slope]],
    noisy: set[int],
    *,
    trust: bool,
) -> list[Suspect]:
    """The places that lose a gradient which matters.

    **Arguments**
    - `slopes`: as of `Runs`.
    - `noisy`: indices of operations that only draw.
    - `trust`: equal seeds give equal runs, so that shares can be measured.

    **Cost**: one forward per place and move until a move shows a step, and those of `Jump`; one recorded where there is
    any place.
    """
    groups: Groups = defaultdict(list)
    twins = twins_of(moved)
    for r in base.records:
        if (
            r.index in noisy
            or (r.kind == "hook" and not _raises(r))
            or not any(changed(r, twins[scale].get(r.key)) for scale in moved)
        ):
            continue
        symptom = CUT if taken_for_constant(base, r) else _loses(r, twins)
        if symptom is ZERO and r.kind == "torch" and base_name(r) in SATURATING:
            symptom = SATURATED  # it has a slope elsewhere
        if symptom is None and any(found[r.key].wraps for found in slopes.values() if r.key in found):
            symptom = WRONG
        if symptom is not None:
            groups[symptom, r.group].append(r)
        if r.switched_off_at is not None and any(v.carries for v in r.inputs):
            place = r.switched_off_at
            groups[CUT, ("no_grad", place.file or place.module, place.line)].append(r)
    ratio = chaos(base, moved)

    def weighed(groups: Groups) -> list[Suspect]:
        suspects = []
        keys = {r.key for records in groups.values() for r in records} if trust else set()
        numbers = {r.key: r for r in recording.again(base, keys).records}
        jump = Jump(recording, base, moved[SCALES[0]], keys)
        for (symptom, group), records in groups.items():
            share = float("nan")
            if trust:
                there = [numbers[r.key] for r in records if r.key in numbers]
                share = _share(recording.classifier, base, moved, twins, there, jump)
                if not share > NOTABLE:
                    continue
            first = records[0]
            said = title(group[0], first)
            place = first.switched_off_at if group[0] == "no_grad" and first.switched_off_at else first.site
            seen = {"share": share, "jump": ratio}
            suspects.append(Suspect(symptom, said, place, group, first.kind, share, seen, tuple(records)))
        return suspects

    suspects = weighed(groups)
    if (
        trust
        and all(s.symptom is not CUT for s in suspects)
        and not any(r.name in EXITS for r in base.records)
    ):
        suspects += [_where_it_was_made(base, s) for s in weighed(_arrivals(base, twins, noisy))]
    kept = _without_echoes(suspects)
    return [*kept, *_effects(base, kept)]


def _arrivals(base: Trace, twins: Twins, noisy: set[int]) -> Groups:
    """Operations to which something comes that left torch where nobody could see it: in a thread, as a file."""
    groups: Groups = defaultdict(list)
    for r in base.records:
        if (
            r.kind == "source"
            and r.index not in noisy
            and any(changed(r, run.get(r.key)) for run in twins.values())
        ):
            groups[CUT, r.group].append(r)
    for r, places in unaccounted(base, twins):
        if r.index not in noisy and any(r.inputs[n].floating for n in places):
            groups[CUT, r.group].append(r)
    return groups


def _where_it_was_made(base: Trace, s: Suspect) -> Suspect:
    """The line at which an operation gave memory for what came another way, rather than that of its first use."""
    makers = [base.records[v.producer] for v in s.records[0].inputs if v.producer >= 0]
    maker = next((r for r in makers if r.name in UNSET), None)
    return s if maker is None else replace(s, site=maker.site, operation="a copy made outside torch's sight")


def _effects(base: Trace, suspects: list[Suspect]) -> list[Suspect]:
    """Where a decision made in one line takes effect in another: `dark = x < 0.3` and, later, `where(dark, …)`."""
    effects = []
    for s in suspects:
        if s.symptom is not DISCRETE or not s.records:
            continue
        reached = {s.records[0].index}
        for r in base.records[s.records[0].index + 1 :]:
            # Of values and indices, the values are no part of the decision.
            if not any(v.producer in reached and not v.carries for v in r.inputs):
                continue
            reached.add(r.index)
            if any(v.floating for v in r.outputs):
                if r.site.file == s.site.file and r.site.line != s.site.line:
                    statistics = {"decided_at_line": float(s.site.line)}
                    effects.append(
                        replace(
                            s,
                            symptom=EFFECT,
                            operation=title(r.name, r),
                            site=r.site,
                            group=r.group,
                            statistics=statistics,
                            records=(r,),
                        )
                    )
                break
    return effects


def _without_echoes(suspects: list[Suspect]) -> list[Suspect]:
    """Drops what a better-named suspect already says: a conversion behind a cut, and casts of a comparison's result."""
    cut_files = {(s.site.file, s.site.line) for s in suspects if s.symptom is CUT and s.group[0] not in EXITS}
    kept = []
    for s in suspects:
        exits = s.group[0] in EXITS
        if exits and (s.site.file, s.site.line) in cut_files:
            continue
        kept.append(s)
    return kept


def _loses(r: Record, twins: Twins) -> Symptom | None:
    """How this operation loses the gradient of its inputs; None where it does not."""
    arriving = [v for v in r.inputs if v.carries]
    if not arriving or r.name in GRADIENTS:
        return None
    if r.name in CUTS or r.name in EXITS:
        return CUT
    leaving = [v for v in r.outputs if v.carries]
    if not leaving:
        if any(v.floating for v in r.outputs):
            if r.kind in CLOSED:
                return OPAQUE
            return CUT if r.name in COPIES or r.kind == "hook" else ZERO
        return DISCRETE if r.outputs else None
    if len(leaving) < len(r.outputs) and any(not v.carries for v in r.outputs):
        return DISCRETE  # indices beside values
    others = [run[r.key] for run in twins.values() if r.key in run]
    return ZERO if zero_everywhere(r) or deaf_to_one(r, others) else None


def _raises(r: Record) -> bool:
    """Whether backward hooks raise where a gradient comes back, so that none does."""
    return bool(r.outputs) and all(not v.carries for v in r.outputs)


def _share(
    classifier: Classifier,
    base: Trace,
    moved: dict[float, Trace],
    twins: Twins,
    records: list[Record],
    jump: Jump,
) -> float:
    """Share that passes through, at the smallest move at which it is notable and a step's; NaN where there is none.

    What an honest kink loses grows with the move. So what is notable only in a larger one must be part of a jump.
    Another image in the place of the first is looked at only where no move decides anything otherwise.
    """
    small = False
    for scale in sorted(moved):
        if scale == EXCHANGED and small:
            break
        share = _share_at(classifier, base, moved[scale], twins[scale], records)
        if share > NOTABLE and (not small or jump.share(records) > NOTABLE):
            return share
        small = small or share <= NOTABLE
    return float("nan")


def _share_at(
    classifier: Classifier,
    base: Trace,
    trace: Trace,
    twins: Mapping[tuple[str, str, int, int], Record],
    records: list[Record],
) -> float:
    """Share that passes through at one move; NaN where it moves not both the operation and the logits."""
    if not any(decided_otherwise(r, twins.get(r.key)) for r in records):
        return float("nan")
    change = (trace.logits - base.logits).detach().abs().max()
    if not change > 1e-6 * base.logits.detach().abs().max():
        return float("nan")
    try:
        return share_through(
            classifier, base, trace.x.detach(), trace.logits.detach(), records, seed=base.seed
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception:  # the user's code, given something held still that it did not expect
        return float("nan")
