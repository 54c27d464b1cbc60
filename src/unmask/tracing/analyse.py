"""From recorded runs to suspects: which operations lose, falsify, saturate or randomise the gradient.

Four kinds of runs are compared, operation by operation: the same input and seed twice (is the randomness ours to
control?), another seed (what is random, and where does it come from?), and inputs moved by fractions of epsilon (what
depends on the input, and does its gradient say how?). `detect/detectors.py` lists who looks for which kind of harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ..classifier import Classifier, seeded
from ..errors import first_line, out_of_memory, said
from ..objectives import margin_loss
from ..randomness import Streams
from ..state.process import back_afterwards
from ..state.settings import modes
from ..threat import Linf, NormBall, ThreatModel
from ..types import per_example
from .asked import asked_about
from .detect.detectors import detected
from .detect.flow import follow, listen
from .detect.losses import lost_gradients
from .detect.origins import random_origins
from .detect.runs import Runs, Slope, slopes
from .detect.sampling import beside_the_way, by_the_input, drawn
from .detect.slopes import examined
from .record.compare import EXCHANGED, SCALES, same, twins_of
from .record.fidelity import CONTROLS, Pass, checked, plain_pass
from .record.freeze import logits_with
from .record.keeping import Recording, forget, let_go, nothing, of, sparing
from .record.recorder import everything
from .record.values import Key, Trace
from .repair.regions.bridges import leading
from .squashing import last_soft_max
from .suspect import Analysis

# Runs of a random network over which its operations' results are averaged. Ours.
DRAWS = 8
# Bytes of all results of one run that are always looked at; of a larger run, about half as many. Ours: two images of a
# large network have more elements to compare than eight of a small one.
LARGE = 16 * 2**20
AS_WRITTEN = (
    "the tracer could not look behind what the network cuts from the gradient, as a pass with these cuts undone is "
    "another one ({}): operations behind a cut are not examined, and cuts are not repaired"
)
UNTRACED = (
    "no operation of the network could be examined, as a recorded pass is another one ({}): nothing is said about "
    "where its gradients mislead"
)


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

    `y`: `[batch]`. A trace that cannot be taken is said in the analysis's `warning`, and never ends an audit. Of a
    large network the first images are traced alone, two at least.

    **Cost**: fourteen plain and nine recorded forwards per example (up to eleven more for a random network), up to
    three more for what has to be looked at again, one for each place that loses the gradient, and local backward passes
    through single operations (not metered: none is a pass through the network). In memory about twice what one forward
    and backward of the batch take, whatever the depth.
    **Raises** `torch.OutOfMemoryError` where a single image is too much.
    """
    streams, ball = Streams.of(generator, len(x)), threat.around(x.shape[1:])
    reason = ""
    plain = plain_pass(classifier, x, seed=seed)
    for uncut, warning in ((True, ""), (False, AS_WRITTEN)):
        recording = Recording(classifier, uncut, plain.memory, examined)
        try:
            # Probes of single operations draw from the global generator, and walk back through somebody's hooks.
            with seeded(seed, x.device), back_afterwards(modes()):
                base, difference = _as_many_as_fit(recording, x, plain)
                if not difference:
                    few = len(base.logits)
                    found = _analyse(recording, base, y[:few], ball, streams[:few])
                    return replace(found, warning=warning.format(reason))
            reason = reason or difference
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # anybody's code, run with somebody looking: it may raise anything
            if out_of_memory(error):
                raise torch.OutOfMemoryError(said(error)) from error
            reason = reason or f"{type(error).__name__}: {first_line(error)}"
    empty = Trace([], plain.logits, x, [])
    return Analysis((), empty, {}, True, True, (), warning=UNTRACED.format(reason))


def _as_many_as_fit(recording: Recording, x: Tensor, plain: Pass) -> tuple[Trace, str]:
    """The first run, on fewer images where it is large; and what it does otherwise than a plain one."""
    base, difference = checked(recording, x, plain, keep=sparing(examined, LARGE))
    size = base.size
    if difference or size <= LARGE:
        return base, difference
    del base
    few = x[: max(2, len(x) * LARGE // (2 * size))]
    plain = plain if len(few) == len(x) else plain_pass(recording.classifier, few, seed=plain.seed)
    return checked(recording, few, plain)


def _analyse(recording: Recording, base: Trace, y: Tensor, threat: NormBall, streams: Streams) -> Analysis:
    x, seed = base.x.detach(), base.seed
    tells = _telling(recording.classifier, x, seed)
    again = _other_than(base, partial(_digests, recording, x), [seed] * (CONTROLS if tells == seed else 1))
    controlled = same(base.logits, again.logits)
    other = _digests(recording, x, seed=tells if controlled and tells is not None else seed + 1)
    if not controlled:  # it cannot be looked at again
        base = _other_than(again, partial(recording, x, keep=everything), [seed] * CONTROLS)
    deterministic = controlled and same(base.logits, other.logits)
    twin = other if controlled else again  # on the same input, where randomness shows
    listen(base, margin_loss, y, filter(examined, base.records))
    moved, found = _moved(recording, base, y, threat, streams)
    runs, points = (base, twin), x
    seeds = seed, (tells or seed + 1) if controlled else seed
    if deterministic:
        # Votes that all agree at an image hide the noise behind them; between two images they do not.
        points, seeds = x.lerp(x.roll(1, 0), 0.5), (seed, seed + 1)
        one, two = (_digests(recording, points, seed=s) for s in seeds)
        runs = one, two
        deterministic = same(one.logits, two.logits)
    origins = () if deterministic else random_origins(recording, *runs, points, seeds)
    twins = twins_of(moved)
    noisy = drawn(base, twin, {o.group for o in origins}, twins)
    draws: frozenset[int] = frozenset()
    if controlled and noisy:
        if follow(base, margin_loss, y).dead_at_input > 0.5:
            # The only way on leads through a draw, as in `poisson(x)`: then it loses the gradient, too. So do places
            # that are drawn, as by `multinomial(x)`: what is counted there has a mean, and that has a slope.
            noisy = set()
        else:
            draws = by_the_input(base, noisy, twins)
            noisy |= beside_the_way(base, other, noisy, twins)
    lost = lost_gradients(recording, base, moved, found, noisy, trust=controlled)
    suspects = detected(Runs(base, moved, y, found, controlled, tuple(lost), tuple(origins), draws))
    analysis = Analysis(
        tuple(suspects),
        base,
        moved,
        deterministic,
        controlled,
        tuple(origins),
        leading=leading(base, suspects),
        squashing=last_soft_max(base),
    )
    let_go(base)
    if controlled:  # else it cannot be looked at again
        forget(base)
    return _with_numbers(analysis, recording)


def _moved(
    recording: Recording, base: Trace, y: Tensor, threat: NormBall, streams: Streams
) -> tuple[dict[float, Trace], dict[float, dict[Key, Slope]]]:
    """The runs on moved images, by the share of epsilon; and what the base run's derivatives say of them."""
    x = base.x.detach()
    direction = _direction(x, threat, streams)
    moved, found = {}, {}
    for scale in SCALES:
        trace = recording(threat.settle(x + scale * (direction - x), x), seed=base.seed)
        listen(trace, margin_loss, y, filter(examined, trace.records))
        found[scale] = slopes(base, trace, y)
        moved[scale] = forget(let_go(trace))
    moved[EXCHANGED] = _digests(recording, x.roll(1, 0), seed=base.seed)
    return moved, found


def _with_numbers(found: Analysis, recording: Recording) -> Analysis:
    """The analysis with the numbers that repairs will compare, of its own run and of others under other seeds."""
    keys = asked_about(found)
    base = recording.again(found.base, keys) if found.controlled else found.base
    numbers = {r.key: r for r in base.records}
    suspects = [replace(s, records=tuple(numbers.get(r.key, r) for r in s.records)) for s in found.suspects]
    seeds = () if found.deterministic else range(base.seed + 1, base.seed + DRAWS)
    others = (let_go(recording(base.x, seed=seed, keep=of(keys))) for seed in seeds)
    draws = (base, *others) if seeds else ()
    return replace(found, suspects=tuple(suspects), base=base, draws=draws)


def _digests(recording: Recording, x: Tensor, *, seed: int) -> Trace:
    """A run of which digests alone stay."""
    return let_go(recording(x, seed=seed, keep=nothing))


def _telling(classifier: Classifier, x: Tensor, seed: int) -> int | None:
    """The first seed under which a pass differs from one under `seed`; `seed` itself where seeds do not rule it."""
    first = logits_with(classifier, x, [], seed=seed)
    for other in (*[seed] * CONTROLS, *range(seed + 1, seed + 1 + CONTROLS)):
        if not same(first, logits_with(classifier, x, [], seed=other)):
            return other
    return None


def _other_than(base: Trace, run: Callable[..., Trace], seeds: list[int]) -> Trace:
    """The first run under one of the seeds that differs from `base`; the last, if none does."""
    for seed in seeds:
        trace = run(seed=seed)
        if not same(base.logits, trace.logits):
            break
    return trace


def _direction(x: Tensor, threat: NormBall, streams: Streams) -> Tensor:
    """A point at distance about epsilon in a random direction that uses many pixels."""
    if isinstance(threat, Linf):
        # Inwards where the box is near, so that the whole epsilon is used.
        signs = streams.signs(*x.shape[1:], device=x.device).to(x.dtype)
        low, high = threat.box
        reach = threat.reach(x)
        signs = torch.where(x + signs * reach > high, -1.0, signs)
        signs = torch.where(x + signs * reach < low, 1.0, signs)
        # Not all of one size: an operation that is periodic in the input could hide between equal steps.
        return x + reach * signs * (1 - streams.uniform(*x.shape[1:], device=x.device).to(x.dtype) / 2)
    noise = streams.normal(*x.shape[1:], device=x.device).to(x.dtype)
    noise = threat.from_units(noise)
    size = replace(threat, epsilon=1.0).distance(x + noise, x).to(x.dtype)
    return x + noise * per_example(threat.epsilon / size, x)
