"""A learned surrogate of a part that autograd cannot see and whose result has another shape than what it was given.

Where an array leaves torch as an image and comes back as coefficients, a crop or patch features, the identity is
no surrogate. What leaves and what comes back is recorded, and a small network learns the one from the other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ....classifier import Classifier, seeded
from ....randomness import Streams
from ....threat import ThreatModel
from ...intercept.operations import CLOSED
from ...record.passes import record
from ...record.values import Trace
from ...suspect import Analysis, Asks
from ..rules import Bridge
from .crossings import Crossing, exit_crossing, trips_across
from .likeness import dependents
from .regression import BentMap, bend, linear_regression

# Points to learn from, as a multiple of the number of elements that leave, and its bounds. Ours: a linear map is found
# exactly from as many points as it has inputs.
POINTS = (2, 1024, 2048)
# Correlation from which on the identity across a part of equal shapes needs no help. Ours.
ENOUGH = 0.8
# Least mean cosine between predicted and seen changes. Ours: of whole images that flip, a quarter already leads an
# attack as far as differences of every pixel do; the race decides.
AGREEING = 0.15


@dataclass(frozen=True, eq=False)
class Learned:
    """A bridge over what autograd cannot see, fitted to what was seen there.

    **Fields**
    - `cosine`: mean, between the changes that its slopes predict and those seen on held-out images.
    """

    bridge: Bridge
    cosine: float


def learn_surrogate(
    analysis: Analysis,
    classifier: Classifier,
    pool: Float[Tensor, "batch channels height width"],
    threat: ThreatModel,
    *,
    seed: int,
    batch_size: int = 32,
    generator: torch.Generator | Streams,
) -> Learned | None:
    """A learned bridge over the analysis's cut, where one is called for and measures up.

    Called for is one where the result of the hidden part has another shape than what it was given, or is so little like
    it that the identity is a poor surrogate. A linear map and a
    bent one are fitted to three quarters of the images and to points around them, up to epsilon away; the one whose
    slopes agree better with the changes seen at the other quarter is kept, if they agree at all.

    **Arguments**
    - `pool`: images to learn from; more than those that were traced.
    - `batch_size`: examples recorded at a time, for a recording keeps all that it saw.

    **Cost**: a recorded forward for each point, metered as every forward of the network is, for nobody can run the
    hidden part alone: twice as many points as elements leave, at least 1024, at most 2048. The surrogate's own passes
    are not the network's and are not counted.
    **Source**: Athalye et al. 2018, arXiv:1802.00420, section 4.1.2, for the idea; the recipe is ours.
    """
    crossing = _called_for(analysis)
    if crossing is None or len(pool) < 4:
        return None
    shapes = _examples(crossing, analysis.base)
    assert shapes is not None  # it was looked at when called for
    times, least, most = POINTS
    points = min(max(times * shapes[0][0].numel(), least), most)
    streams = Streams.of(generator, len(pool))
    seen = _observe(classifier, crossing, pool, threat, points, batch_size, seed, streams)
    if seen is None:
        return None
    out = torch.arange(len(pool), device=pool.device) % 4 == 0
    inputs, targets = (torch.cat([pair[n][~out] for pair in seen]) for n in (0, 1))
    (x, y), *near = [(s[out], t[out]) for s, t in seen]
    with seeded(seed, pool.device), torch.enable_grad():
        weight, offset = linear_regression(inputs.flatten(1), targets.flatten(1))
        linear = BentMap(inputs.shape[1:], targets.shape[1:], weight, offset)
        both = linear, bend(linear, inputs, targets)
    measured = [_agreement(f, x, [(s - x, t - y) for s, t in near]) for f in both]
    best = max(measured)
    if not best > AGREEING:
        return None
    return Learned(crossing.bridge(both[measured.index(best)]), best)


def _called_for(analysis: Analysis) -> Crossing | None:
    """The hidden part, if its result has another shape than what it was given, or is little like it."""
    crossings = [exit_crossing(analysis)] if analysis.asking(Asks.REOPEN) else []
    hidden = [
        s for s in analysis.asking(Asks.REPLACE) if s.symptom.hidden and s.kind in (*CLOSED, "function")
    ]
    crossings += [Crossing(("", "", 0), s.records[0], "each", alone=True) for s in hidden]
    for crossing in crossings:
        crossing = None if crossing is None else _back_as_numbers(analysis, crossing)
        seen = None if crossing is None else _examples(crossing, analysis.base)
        if crossing is None or seen is None:
            continue
        if seen[0].shape != seen[1].shape or (not crossing.alone and _unlike(analysis, seen[0])):
            return crossing
    return None


def _unlike(analysis: Analysis, left: Tensor) -> bool:
    """Whether what came back is so little like what left that the identity's slopes are poor ones."""
    if left[0].numel() > POINTS[2]:
        return False  # too few points to learn more from
    return max(trips_across(analysis).values(), default=0.0) < ENOUGH


def _back_as_numbers(analysis: Analysis, crossing: Crossing) -> Crossing | None:
    """Up to the first result that is no integer: bytes that come back from an image library are converted next."""
    if crossing.argument is not None:
        return crossing
    following = [crossing.first, *dependents(analysis.base.records, crossing.first.index)[:8]]
    end = next((r for r in following if r.outputs and r.outputs[0].floating), None)
    if end is None:
        return None
    crossing = replace(crossing, last=end)
    left, back = crossing.ends(analysis.base)
    pairing = "each" if len(left) == len(back) else "stack" if len(back) == 1 else "item"
    return replace(crossing, pairing=pairing)


def _examples(crossing: Crossing, trace: Trace) -> tuple[Tensor, Tensor] | None:
    """What left and what came back, `[batch, …]` both; None where they are not one each per example, or numbers."""
    left, back = crossing.ends(trace)
    batch = len(trace.logits)
    ends = []
    for tensors, one_each in ((left, crossing.pairing == "stack"), (back, crossing.pairing == "item")):
        many = one_each or (len(tensors) == batch and batch > 1)
        if many and (len(tensors) != batch or any(t.shape != tensors[0].shape for t in tensors)):
            return None
        if not many and (len(tensors) != 1 or not tensors[0].ndim or len(tensors[0]) != batch):
            return None
        ends.append(torch.stack(tensors) if many else tensors[0])
    if any(end.ndim < 2 for end in ends):
        return None  # one number for each
    return ends[0].float(), ends[1].float()


def _observe(
    classifier: Classifier,
    crossing: Crossing,
    pool: Tensor,
    threat: ThreatModel,
    points: int,
    batch_size: int,
    seed: int,
    streams: Streams,
) -> list[tuple[Tensor, Tensor]] | None:
    """What left and what came back, for the images and then for random points around them, in pool's order."""
    found = []
    for copy in range(max(2, -(-points // len(pool)))):
        x = pool if copy == 0 else threat.settle(threat.random_start(pool, generator=streams), pool)
        seen = []
        for part in x.split(batch_size):
            # Another seed each time: of a random part, the mean over its draws is learnt.
            pair = _examples(crossing, record(classifier, part, seed=seed + copy, keep=crossing.ended_by))
            if pair is None:
                return None
            seen.append(pair)
        found.append((torch.cat([s for s, _ in seen]), torch.cat([t for _, t in seen])))
    return found


def _agreement(surrogate: BentMap, x: Tensor, near: list[tuple[Tensor, Tensor]]) -> float:
    """Mean cosine between the change that the surrogate's slope predicts and the change seen; `near` holds both."""
    cosines = []
    for step, change in near:
        predicted = torch.autograd.functional.jvp(surrogate, x, step)[1]
        assert isinstance(predicted, Tensor)
        cosines.append(F.cosine_similarity(predicted.flatten(1), change.flatten(1), dim=1))
    return float(torch.cat(cosines).mean())
