"""From recorded runs to suspects: which operations lose, falsify, saturate or randomise the gradient.

Four kinds of runs are compared, operation by operation: the same input and seed twice (is the randomness ours to
control?), another seed (what is random, and where does it come from?), and inputs moved by fractions of epsilon (what
depends on the input, and does its gradient say how?). An operation whose gradient is lost is a suspect only if a
notable share of the change of the logits passes through it: hold its result still and see what is missing. A ReLU
written as `x * (x > 0)` loses the gradient of its comparison too, but nothing of the first order passes there.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..classifier import Classifier, seeded
from ..objectives import cross_entropy, margin
from ..randomness import Streams
from ..threat import Linf, ThreatModel
from ..types import per_example
from .flow import Passage, follow
from .freezer import share_through
from .origins import Origin, random_origins
from .recorder import COPIES, CUTS, EXITS, Record, Trace, Value, held, record
from .sites import Site
from .surrogates import SATURATING

# Fractions of epsilon at which the network is moved. Ours: an attack's steps are between a sixteenth and a quarter.
SCALES = (1.0, 0.25, 0.0625)
# Another image in its place: for operations, such as an arg-max at the output, that no small move changes.
EXCHANGED = 100.0
# Least share of the change of the logits that must pass through an operation before losing it counts. Ours.
NOTABLE = 0.25
# Below this cosine between predicted and true change, an operation's derivative is useless at an attack's scale. Ours.
USELESS = 0.35

# Runs of a random network over which its operations' results are averaged. Ours.
DRAWS = 8
# Share of the changing elements without a derivative above which an operation counts as saturated. Ours.
BLOCKED = 0.5
# Half of their elements are dead by design, and come alive under a large move.
RECTIFIERS = frozenset(("relu", "relu6", "threshold", "hardshrink", "softshrink"))
# Flat on one side: black pixels below a floor leave it under every move, and have a slope from there on.
FLOORS = frozenset(("clamp_min", "clamp_max"))
# Least share of the examples whose gradient must die at one place before it counts. Ours.
DEAD_SHARE = 0.1

# Sawtooth functions, and all that come back to where they were.
WRAPPING = frozenset(("remainder", "fmod", "frac", "__mod__", "__rmod__"))
PERIODIC = WRAPPING | {"sin", "cos", "tan"}

Group = tuple[str, str, int]


@dataclass(frozen=True, eq=False)
class Suspect:
    """One place whose gradient cannot be trusted.

    **Fields**
    - `symptom`: `zero`, `discrete`, `cut`, `wrong`, `saturated`, `vanished`, `underflow`, `non_finite`, `random`,
      `opaque`, or `effect`: where a discrete decision comes back into the arithmetic.
    - `group`: name and place under which the operation is found again in another pass.
    - `share`: share of the change of the logits that passes through it, where that was measured.
    - `records`: its operations in the base run.
    """

    symptom: str
    operation: str
    site: Site
    group: Group
    kind: str = "torch"
    share: float = float("nan")
    statistics: dict[str, float] = field(default_factory=dict)
    records: tuple[Record, ...] = ()


@dataclass(frozen=True, eq=False)
class Analysis:
    """All suspects, the runs that they were found in, and what was seen on the way.

    `draws` are runs on the same input under different seeds, for a random network.
    """

    suspects: tuple[Suspect, ...]
    base: Trace
    moved: dict[float, Trace]
    deterministic: bool
    controlled: bool
    origins: tuple[Origin, ...]
    draws: tuple[Trace, ...] = ()

    def where(self, *symptoms: str) -> list[Suspect]:
        """The suspects of some symptoms."""
        return [s for s in self.suspects if s.symptom in symptoms]


def analyse(
    classifier: Classifier,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    seed: int,
    generator: torch.Generator | Streams,
) -> Analysis:
    """Traces a small batch `[batch, channels, height, width]` and names the suspects.

    **Cost**: seven recorded forwards per example (six more for a random network), one more per place that loses the
    gradient, and local backward passes through single operations (not metered: none is a pass through the network).
    """
    with seeded(
        seed, x.device
    ):  # probes of single operations draw their cotangents from the global generator
        return _analyse(classifier, x, y, threat, seed, Streams.of(generator, len(x)))


def _analyse(
    classifier: Classifier, x: Tensor, y: Tensor, threat: ThreatModel, seed: int, streams: Streams
) -> Analysis:
    base = record(classifier, x, seed=seed)
    again = record(classifier, x, seed=seed)
    other = record(classifier, x, seed=seed + 1)
    controlled = _same(base.logits, again.logits)
    deterministic = controlled and _same(base.logits, other.logits)
    direction = _direction(x, threat, streams)
    moved = {
        scale: record(classifier, threat.settle(x + scale * (direction - x), x), seed=seed)
        for scale in SCALES
    }
    moved[EXCHANGED] = record(classifier, x.roll(1, 0), seed=seed)
    origins = (
        () if deterministic else random_origins(classifier, base, other if controlled else again, x, seed)
    )
    noisy = _drawn(base, other if controlled else again, {o.group for o in origins})
    if controlled and noisy and follow(base, margin, y).dead_at_input > 0.5:
        # The only way on leads through a draw, as in `poisson(x)`: then it loses the gradient, too.
        noisy -= {i for i in noisy if any(v.data.is_floating_point() for v in base.records[i].outputs)}
    lost = _lost(classifier, base, moved, noisy, seed=seed, trust=controlled)
    suspects = [
        *lost,
        *_misleading(base, moved, controlled),
        *(s for s in _vanishing_and_exploding(base, y) if not _explained(s, base, moved, lost)),
        *(
            Suspect("random", o.operation, o.site, o.group, statistics={"change_of_logits": o.effect})
            for o in origins
        ),
    ]
    draws = (
        ()
        if deterministic
        else (base, other, *(record(classifier, x, seed=seed + n) for n in range(2, DRAWS)))
    )
    return Analysis(tuple(suspects), base, moved, deterministic, controlled, tuple(origins), draws)


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())


def _direction(x: Tensor, threat: ThreatModel, streams: Streams) -> Tensor:
    """A point at distance about epsilon in a random direction that uses many pixels."""
    if isinstance(threat, Linf):
        # Inwards where the box is near, so that the whole epsilon is used.
        signs = streams.signs(*x.shape[1:], device=x.device).to(x.dtype)
        low, high = threat.box
        signs = torch.where(x + signs * threat.epsilon > high, -1.0, signs)
        signs = torch.where(x + signs * threat.epsilon < low, 1.0, signs)
        # Not all of one size: an operation that is periodic in the input could hide between equal steps.
        return x + threat.epsilon * signs * (
            1 - streams.uniform(*x.shape[1:], device=x.device).to(x.dtype) / 2
        )
    noise = streams.normal(*x.shape[1:], device=x.device).to(x.dtype)
    size = replace(threat, epsilon=1.0).distance(x + noise, x).to(x.dtype)
    return x + noise * per_example(threat.epsilon / size, x)


# --- operations that lose the gradient -----------------------------------------------------------------------------


def _lost(
    classifier: Classifier, base: Trace, moved: dict[float, Trace], noisy: set[int], *, seed: int, trust: bool
) -> list[Suspect]:
    groups: dict[tuple[str, Group], list[Record]] = defaultdict(list)
    by_key = {scale: {r.key: r for r in trace.records} for scale, trace in moved.items()}
    for r in base.records:
        if (
            r.index in noisy
            or r.kind == "hook"
            or not any(_changed(r, by_key[scale].get(r.key)) for scale in moved)
        ):
            continue
        symptom = _loses(r, classifier)
        if symptom == "zero" and r.kind == "torch" and _base_name(r) in SATURATING:
            symptom = "saturated"  # it has a slope elsewhere
        if not symptom and any(_wraps(r, by_key[scale].get(r.key)) for scale in SCALES):
            symptom = "wrong"
        if symptom:
            groups[symptom, r.group].append(r)
        if r.switched_off_at is not None and any(v.edge is not None for v in r.inputs):
            place = r.switched_off_at
            groups["cut", ("no_grad", place.file or place.module, place.line)].append(r)
    if not groups and not any(r.name in EXITS for r in base.records):
        for r in base.records:  # it left torch where nobody could see it, in a thread for instance
            if r.index not in noisy and _arrived(r, by_key):
                groups["cut", r.group].append(r)
    suspects = []
    for (symptom, group), records in groups.items():
        share = _share(classifier, base, moved, by_key, records, seed) if trust else float("nan")
        if trust and not share > NOTABLE:
            continue
        first = records[0]
        place = first.switched_off_at if group[0] == "no_grad" and first.switched_off_at else first.site
        suspects.append(
            Suspect(
                symptom,
                _title(group[0], first),
                place,
                group,
                first.kind,
                share,
                {"share": share},
                tuple(records),
            )
        )
    kept = _without_echoes(suspects)
    return [*kept, *_effects(base, kept)]


def _arrived(r: Record, by_key: dict[float, dict[tuple, Record]]) -> bool:
    """Whether it brings in a tensor from outside torch that depends on the input."""
    twins = [run[r.key] for run in by_key.values() if r.key in run]
    if r.kind == "source":
        return any(_changed(r, twin) for twin in twins)
    return any(
        before.producer < 0
        and not before.from_input
        and before.edge is None
        and before.data.is_floating_point()
        and not _same(before.data, after.data)
        for twin in twins
        for before, after in zip(r.inputs, twin.inputs, strict=False)
    )


def _wraps(r: Record, after: Record | None) -> bool:
    """Whether a remainder jumps in a notable share of its elements: its derivative, always one, knows of no jump.

    `x - x % step` is a staircase, although each of its two operations has an honest derivative.
    """
    if after is None or _base_name(r) not in WRAPPING or r.inputs[0].edge is None:
        return False
    values = r.inputs[0].data, after.inputs[0].data, r.outputs[0].data, after.outputs[0].data
    if any(v.shape != values[0].shape for v in values):
        return False
    moved, change = values[1] - values[0], values[3] - values[2]
    jumped = (change - moved).abs() > 1e-2 * moved.abs()
    return float(jumped[moved != 0].float().mean()) > DEAD_SHARE


def _drawn(base: Trace, other: Trace, origins: set[Group]) -> set[int]:
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
            a.edge is None and not _same(a.data, b.data) for a, b in zip(r.inputs, twin.inputs, strict=False)
        ]
        if any(noise):
            found.add(r.index)
    return found


def _title(name: str, r: Record) -> str:
    if name == "no_grad":
        return "torch.no_grad"
    if r.kind == "hook":
        return name
    if r.kind == "function":
        return f"{name} (autograd.Function)"
    return name.strip("_") if r.kind != "torch" else f"torch.{name}"


def _effects(base: Trace, suspects: list[Suspect]) -> list[Suspect]:
    """Where a decision made in one line takes effect in another: `dark = x < 0.3` and, later, `where(dark, …)`."""
    effects = []
    for s in suspects:
        if s.symptom != "discrete" or not s.records:
            continue
        reached = {s.records[0].index}
        for r in base.records[s.records[0].index + 1 :]:
            if not any(v.producer in reached for v in r.inputs):
                continue
            reached.add(r.index)
            if any(v.data.is_floating_point() for v in r.outputs):
                if r.site.file == s.site.file and r.site.line != s.site.line:
                    statistics = {"decided_at_line": float(s.site.line)}
                    effects.append(
                        replace(
                            s,
                            symptom="effect",
                            operation=_title(r.name, r),
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
    cut_files = {
        (s.site.file, s.site.line) for s in suspects if s.symptom == "cut" and s.group[0] not in EXITS
    }
    kept = []
    for s in suspects:
        exits = s.group[0] in EXITS
        if exits and (s.site.file, s.site.line) in cut_files:
            continue
        kept.append(s)
    return kept


def _changed(r: Record, after: Record | None) -> bool:
    if after is None or len(after.outputs) != len(r.outputs):
        return True  # the path through the code depends on the input
    if r.plain is not None or after.plain is not None:
        return repr(r.plain) != repr(after.plain) or any(
            not _same(a.data, b.data) for a, b in zip(r.inputs, after.inputs, strict=False)
        )
    return any(not _same(a.data, b.data) for a, b in zip(r.outputs, after.outputs, strict=True))


def _loses(r: Record, classifier: Classifier) -> str:
    """How this operation loses the gradient of its inputs, or ""."""
    arriving = [v for v in r.inputs if v.edge is not None]
    if not arriving:
        return ""
    if r.name in CUTS or r.name in EXITS:
        return "cut"
    leaving = [v for v in r.outputs if v.edge is not None]
    if not leaving:
        if any(v.data.is_floating_point() for v in r.outputs):
            return "opaque" if r.kind == "opaque" else "cut" if r.name in COPIES else "zero"
        return "discrete" if r.outputs else ""
    if len(leaving) < len(r.outputs) and any(v.edge is None for v in r.outputs):
        return "discrete"  # indices beside values
    return "zero" if _zero_everywhere(r) else ""


def _zero_everywhere(r: Record) -> bool:
    for value in r.outputs:
        for _ in range(2):
            grads = local_vjp(value, r.inputs, torch.randn_like(value.data))
            if grads is None or any(bool(g.ne(0).any()) for g in grads):
                return False
    return True


def local_vjp(output: Value, inputs: list[Value], cotangent: Tensor) -> list[Tensor] | None:
    """Gradient of one operation alone: `cotangent` pulled back to the inputs that carry a gradient.

    None where autograd refuses.
    """
    edges = [v.edge for v in inputs if v.edge is not None]
    if output.edge is None or not edges or output.edge in edges:
        return None
    try:
        found = torch.autograd.grad(
            output.edge,
            edges,
            cotangent,
            retain_graph=True,
            allow_unused=True,  # pyright: ignore[reportArgumentType]
        )
    except RuntimeError:
        return None
    carrying = [v for v in inputs if v.edge is not None]
    return [torch.zeros_like(v.data) if g is None else held(g) for v, g in zip(carrying, found, strict=True)]


def _share(
    classifier: Classifier,
    base: Trace,
    moved: dict[float, Trace],
    by_key: dict[float, dict[tuple, Record]],
    records: list[Record],
    seed: int,
) -> float:
    """Share that passes through, at the smallest move that moves both the operation and the logits.

    Small moves first: what an honest kink loses shrinks with the move, what a step loses does not.
    """
    share = float("nan")
    for scale in sorted(moved):
        trace = moved[scale]
        if not any(_changed(r, by_key[scale].get(r.key)) for r in records):
            continue
        change = (trace.logits - base.logits).detach().abs().max()
        if not change > 1e-6 * base.logits.detach().abs().max():
            continue
        share = share_through(classifier, base, trace.x.detach(), trace.logits.detach(), records, seed=seed)
        if share == share:
            break
    return share


# --- operations at which the real gradient dies or blows up --------------------------------------------------------


def _vanishing_and_exploding(base: Trace, y: Tensor) -> list[Suspect]:
    suspects = []
    flow = follow(base, cross_entropy, y)
    if flow.dead_at_logits > DEAD_SHARE and base.records:
        last = _maker_of_logits(base)
        place = _outermost(last)
        statistics = {
            "dead_at_logits": flow.dead_at_logits,
            "largest_logit": float(base.logits.detach().abs().max()),
        }
        suspects.append(
            Suspect(
                "underflow",
                _title(last.name, last),
                place,
                last.group,
                last.kind,
                1.0,
                statistics,
                (last,),
            )
        )
    for objective in (cross_entropy, margin):
        flow = follow(base, objective, y)
        groups: dict[tuple[str, Group], list[Passage]] = defaultdict(list)
        for passage in flow.passages:
            if passage.spoiled > 0:
                groups["non_finite", passage.record.group].append(passage)
            elif passage.killed > DEAD_SHARE and not _zero_everywhere(passage.record):
                groups["vanished", passage.record.group].append(passage)
        for (symptom, group), passages in groups.items():
            first = passages[0].record
            statistics = {
                "killed": max(p.killed for p in passages),
                "spoiled": max(p.spoiled for p in passages),
                "attenuation": min(p.attenuation for p in passages),
            }
            if any(s.symptom == symptom and s.group == group for s in suspects):
                continue
            records = tuple(p.record for p in passages)
            suspects.append(
                Suspect(
                    symptom, _title(group[0], first), first.site, group, first.kind, 1.0, statistics, records
                )
            )
    return suspects


def _explained(s: Suspect, base: Trace, moved: dict[float, Trace], lost: list[Suspect]) -> bool:
    """Whether a gradient dies here only because the way on was lost before: named there already."""
    if s.symptom != "vanished":
        return False
    groups = {found.group for found in lost}
    guilty: set[int] = set()
    for r in base.records:  # and whatever was made of their results
        if r.group in groups or any(v.edge is None and v.producer in guilty for v in r.inputs):
            guilty.add(r.index)
    by_key = [{r.key: r for r in trace.records} for trace in moved.values()]

    def without_way_on(r: Record) -> bool:
        others = [v for v in r.inputs[1 if r.in_place else 0 :] if v.producer >= 0 or v.from_input]
        if any(v.edge is not None and v.producer not in guilty for v in others):
            return False
        return any(v.producer in guilty for v in r.inputs) or any(
            a.edge is None and not _same(a.data, b.data)
            for twins in by_key
            if r.key in twins
            for a, b in zip(r.inputs, twins[r.key].inputs, strict=False)
        )

    return any(without_way_on(r) for r in s.records)


def _outermost(r: Record) -> Site:
    """The line of the network's own forward that hands out the logits: their size is made by all that comes before."""
    lines = [f for f in r.frames if f.file]
    return Site(lines[-1].file, lines[-1].line, r.site.module) if lines else r.site


def _maker_of_logits(base: Trace) -> Record:
    for r in reversed(base.records):
        if any(
            v.data.shape == base.logits.shape and torch.equal(v.data, base.logits.detach()) for v in r.outputs
        ):
            return r
    return base.records[-1]


# --- operations whose gradient is there but says something else ----------------------------------------------------


def _misleading(base: Trace, moved: dict[float, Trace], controlled: bool) -> list[Suspect]:
    if not controlled:
        return []
    groups: dict[Group, list[tuple[Record, float]]] = defaultdict(list)
    by_key = {scale: {r.key: r for r in trace.records} for scale, trace in moved.items()}
    for r in base.records:
        if r.kind == "torch" and not _elementwise(r):
            continue
        cosines = {}
        for scale in SCALES[1:]:
            after = by_key[scale].get(r.key)
            if after is not None:
                cosine = agreement(r, after)
                if cosine == cosine:
                    cosines[scale] = cosine
        after = by_key[SCALES[1]].get(r.key)
        saturating = _base_name(r) in SATURATING
        stuck = blocked(r, after, by_size=not saturating) if after is not None and r.kind == "torch" else 0.0
        far = by_key[SCALES[0]].get(r.key)
        if far is not None and saturating and _base_name(r) not in RECTIFIERS:
            stuck = max(stuck, blocked(r, far))
        if _base_name(r) in FLOORS:
            stuck = 0.0
        if (cosines and max(cosines.values()) < USELESS) or stuck > BLOCKED:
            groups[r.group].append((r, min(max(cosines.values(), default=1.0), 1 - stuck)))
    suspects = []
    for group, found in groups.items():
        first = found[0][0]
        if first.kind != "hook" and _zero_everywhere(first):
            continue  # already named as lost
        best = max(cosine for _, cosine in found)
        symptom = "saturated" if first.kind == "torch" and _base_name(first) in SATURATING else "wrong"
        suspects.append(
            Suspect(
                symptom,
                _title(group[0], first),
                first.site,
                group,
                first.kind,
                statistics={"cosine": best},
                records=tuple(r for r, _ in found),
            )
        )
    return suspects


def blocked(r: Record, after: Record, *, by_size: bool = False) -> float:
    """Share of the elements that changed although their own derivative, a thousandth of the slope seen, denies it.

    `by_size`: the share of the squared change instead: a parabola has no slope at its foot either, but little happens
    there.
    """
    value, made = r.inputs[0], r.outputs[0]
    if made.edge is None or any(
        a.data.shape != b.data.shape for a, b in ((value, after.inputs[0]), (made, after.outputs[0]))
    ):
        return 0.0
    moved = _wide(after.inputs[0].data - value.data)
    change = _wide(after.outputs[0].data - made.data)
    notable = (change.abs() > 1e-3 * made.data.abs().double().square().mean().sqrt()) & moved.ne(0)
    grads = local_vjp(made, r.inputs, torch.randn_like(made.data))
    if grads is None or not notable.any() or grads[0].shape != notable.shape:
        return 0.0
    slope = (change / moved).abs()
    denied = (grads[0].abs().double() < 1e-3 * slope)[notable].double()
    size = change.abs()[notable].square() if by_size else torch.ones_like(denied)
    return float((denied * size).sum() / size.sum())


def _base_name(r: Record) -> str:
    return r.name if r.name.startswith("__") else r.name.rstrip("_")


def _elementwise(r: Record) -> bool:
    """One tensor in, one out, same shape: where a slope can be useless although torch computes it correctly.

    Products, sums and convolutions are right to first order whatever the scale.
    """
    live = [v for v in r.inputs if v.edge is not None and (v.producer >= 0 or v.from_input)]
    return (
        len(live) == len(r.outputs) == 1
        and live[0].data.shape == r.outputs[0].data.shape
        and len(r.inputs) == 1
    )


def agreement(r: Record, after: Record, *, probes: int = 8) -> float:
    """Cosine between the change that an operation's own gradient predicts and the change that was seen.

    Random cotangents c: `<vjp(c), change of the input>` against `<c, change of the output>`, per example where the
    first dimension is the batch. NaN where nothing changed or autograd refuses.
    """
    generator = torch.Generator().manual_seed(len(r.inputs) + r.index)
    predicted: list[Tensor] = []
    seen: list[Tensor] = []
    for a, b in zip(r.inputs, after.inputs, strict=False):
        if a.edge is None and not _same(a.data, b.data):
            return float("nan")  # what it depends on without gradient was lost earlier, and is named there
    pairs = [(a, b) for a, b in zip(r.inputs, after.inputs, strict=False) if a.edge is not None]
    if all(_same(a.data, b.data) for a, b in pairs):
        return float("nan")
    for before, then in zip(r.outputs, after.outputs, strict=False):
        if before.edge is None or before.data.shape != then.data.shape:
            continue
        change = _wide(then.data - before.data)
        noise = 1e-5 * before.data.abs().double().amax()
        if not (change.abs() > noise).any() or not torch.isfinite(change).all():
            continue
        for _ in range(probes):
            c = torch.randint(0, 2, change.shape, generator=generator).to(change) * 2 - 1
            grads = local_vjp(before, r.inputs, c.to(before.data.dtype))
            if grads is None or len(grads) != len(pairs):
                return float("nan")
            total: Tensor | float = 0.0
            for grad, (a, b) in zip(grads, pairs, strict=True):
                if a.data.shape != b.data.shape or grad.shape != a.data.shape:
                    return float("nan")
                total = total + _rows(_wide(grad).conj() * _wide(b.data - a.data), len(change))
            predicted.append(torch.as_tensor(total).flatten())
            seen.append(_rows(c * change, len(change)).flatten())
    if not seen:
        return float("nan")
    p, s = torch.cat(predicted), torch.cat(seen)
    if p.shape != s.shape:
        p, s = p.sum().reshape(1), s.sum().reshape(1)
    size = torch.linalg.vector_norm(p) * torch.linalg.vector_norm(s)
    if _base_name(r) in PERIODIC and torch.linalg.vector_norm(p) > 4 * torch.linalg.vector_norm(s):
        return 0.0  # many periods in one move: the slope at its beginning says nothing
    if not torch.isfinite(size):
        return float("nan")  # a non-finite slope has a name of its own
    return float((p @ s) / size) if size > 0 else 0.0


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.complex128 if values.is_complex() else torch.float64)


def _rows(products: Tensor, batch: int) -> Tensor:
    products = products.real  # autograd's complex gradient is along the real and the imaginary axis
    if products.ndim and len(products) == batch:
        return products.flatten(1).sum(1) if products.ndim > 1 else products
    return products.sum().reshape(1)
