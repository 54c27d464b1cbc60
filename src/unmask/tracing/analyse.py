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
from ..errors import first_line, out_of_memory
from ..objectives import margin
from ..randomness import Streams
from ..threat import Linf, NormBall, ThreatModel
from ..types import per_example
from .detect.detectors import detected
from .detect.flow import follow
from .detect.losses import lost_gradients
from .detect.origins import random_origins
from .detect.runs import Runs
from .detect.sampling import beside_the_way, drawn
from .record import recorder
from .record.compare import EXCHANGED, SCALES, same, twins_of
from .record.fidelity import checked, plain_pass
from .record.freeze import logits_with
from .record.values import Trace
from .squashing import last_soft_max
from .suspect import Analysis

# Runs of a random network over which its operations' results are averaged. Ours.
DRAWS = 8
# Passes in which randomness may show. Ours: of two members drawn with equal odds, all six are the same once in 64.
CONTROLS = 6
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

    A trace that cannot be taken is said in the analysis's `warning`, and never ends an audit.

    **Cost**: fourteen plain and nine recorded forwards per example (up to eleven more for a random network), one more
    per place that loses the gradient, and local backward passes through single operations (not metered: none is a pass
    through the network).
    """
    streams, ball = Streams.of(generator, len(x)), threat.around(x.shape[1:])
    plain = plain_pass(classifier, x, seed=seed)
    reason = ""
    for uncut, warning in ((True, ""), (False, AS_WRITTEN)):
        try:
            with seeded(seed, x.device):  # probes of single operations draw from the global generator
                base, difference = checked(classifier, x, plain, seed=seed, uncut=uncut)
                if not difference:
                    found = _analyse(classifier, base, plain.memory, uncut, x, y, ball, seed, streams)
                    return replace(found, warning=warning.format(reason))
            reason = reason or difference
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # anybody's code, run with somebody looking: it may raise anything
            if out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            reason = reason or f"{type(error).__name__}: {first_line(error)}"
    empty = Trace([], plain.logits, x, [])
    return Analysis((), empty, {}, True, True, (), warning=UNTRACED.format(reason))


def _analyse(
    classifier: Classifier,
    base: Trace,
    written: frozenset[int],
    uncut: bool,
    x: Tensor,
    y: Tensor,
    threat: NormBall,
    seed: int,
    streams: Streams,
) -> Analysis:
    record = partial(recorder.record, uncut=uncut, written=written)
    tells = _telling(classifier, x, seed)
    again = _other_than(base, partial(record, classifier, x), [seed] * (CONTROLS if tells == seed else 1))
    controlled = same(base.logits, again.logits)
    other = record(classifier, x, seed=tells if controlled and tells is not None else seed + 1)
    deterministic = controlled and same(base.logits, other.logits)
    twin = other if controlled else again  # on the same input, where randomness shows
    del again  # a run holds all that a backward pass needs
    direction = _direction(x, threat, streams)
    moved = {
        scale: record(classifier, threat.settle(x + scale * (direction - x), x), seed=seed)
        for scale in SCALES
    }
    moved[EXCHANGED] = record(classifier, x.roll(1, 0), seed=seed)
    runs, points, seeds = (base, twin), x, (seed, (tells or seed + 1) if controlled else seed)
    if deterministic:
        # Votes that all agree at an image hide the noise behind them; between two images they do not.
        points = x.lerp(x.roll(1, 0), 0.5)
        seeds = seed, seed + 1
        runs = record(classifier, points, seed=seed), record(classifier, points, seed=seed + 1)
        deterministic = same(runs[0].logits, runs[1].logits)
    origins = () if deterministic else random_origins(classifier, *runs, points, seeds)
    del runs
    twins = twins_of(moved)
    noisy = drawn(base, twin, {o.group for o in origins}, twins)
    if controlled and noisy:
        if follow(base, margin, y).dead_at_input > 0.5:
            # The only way on leads through a draw, as in `poisson(x)`: then it loses the gradient, too.
            noisy -= {i for i in noisy if any(v.data.is_floating_point() for v in base.records[i].outputs)}
        else:
            noisy |= beside_the_way(base, other, noisy, twins)
    lost = lost_gradients(classifier, base, moved, noisy, seed=seed, trust=controlled)
    suspects = detected(Runs(base, moved, y, controlled, tuple(lost), tuple(origins)))
    draws = (
        ()
        if deterministic
        else (base, other, *(record(classifier, x, seed=seed + n) for n in range(2, DRAWS)))
    )
    return Analysis(
        tuple(suspects),
        base,
        moved,
        deterministic,
        controlled,
        tuple(origins),
        draws,
        last_soft_max(base),
    )


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
        signs = torch.where(x + signs * threat.epsilon > high, -1.0, signs)
        signs = torch.where(x + signs * threat.epsilon < low, 1.0, signs)
        # Not all of one size: an operation that is periodic in the input could hide between equal steps.
        return x + threat.epsilon * signs * (
            1 - streams.uniform(*x.shape[1:], device=x.device).to(x.dtype) / 2
        )
    noise = streams.normal(*x.shape[1:], device=x.device).to(x.dtype)
    size = replace(threat, epsilon=1.0).distance(x + noise, x).to(x.dtype)
    return x + noise * per_example(threat.epsilon / size, x)
