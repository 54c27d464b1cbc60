"""In which order a targeted attack aims at the wrong classes."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..gradients import GradientEstimator
from ..objectives import Targeted
from ..threat import NormBall
from .base import Cost
from .batch import Batch, Labels

# Classes whose own gradient is asked for, and points at which all classes are looked at to find them where there are
# more (`benchmarks/README.md`). Ours.
SLOPES, POINTS = 9, 6


def likeliest(logits: Float[Tensor, "batch classes"], y: Labels) -> Int[Tensor, "batch classes"]:
    """The wrong classes by their logits, the largest first; the label comes last."""
    return logits.scatter(1, y[:, None], -torch.inf).argsort(1, descending=True)


def nearest(
    logits: Float[Tensor, "batch classes"],
    batch: Batch,
    classifier: Classifier,
    threat: NormBall,
    gradient: GradientEstimator,
) -> Int[Tensor, "batch classes"]:
    """The wrong classes by how far their linearised boundaries are from `x`, the nearest first; the label comes last.

    A class with a small logit and a steep slope, which the likeliest never show, comes first. Where there are more
    than `SLOPES`, those whose difference to the label's logit is least beside how much it varies among random points of
    the ball. Where nothing varies, as where a network tells only its label, the order is that of the likeliest.

    **Cost**: that of `cost_of_nearest`.
    """
    ranked, wrong = likeliest(logits, batch.y), logits.shape[1] - 1
    if wrong > SLOPES:
        ranked = _by_variation(ranked, logits, batch, classifier, threat)
    front, rest = ranked.tensor_split((min(wrong, SLOPES),), 1)
    distances = []
    for aim in front.unbind(1):
        found = gradient.estimate(classifier, Targeted(aim), batch.x, batch.y, generator=batch.streams)
        distances.append(-found.value / threat.dual_length(found.grad))
    return torch.cat([_sorted(front, torch.stack(distances, 1)), rest], 1)


def cost_of_nearest(classes: int) -> Cost:
    """Of `nearest`."""
    return Cost(forwards=POINTS * (classes - 1 > SLOPES), estimates=min(SLOPES, classes - 1))


@torch.no_grad()
def _by_variation(
    ranked: Tensor, logits: Tensor, batch: Batch, classifier: Classifier, threat: NormBall
) -> Tensor:
    """For a linear difference the spread among points is its slope times a length that all classes share."""
    mean, spread = (
        torch.zeros_like(logits, dtype=torch.float64),
        torch.zeros_like(logits, dtype=torch.float64),
    )
    label = batch.y[:, None]
    for count in range(POINTS):
        streams = batch.streams.fork(f"slopes {count}")
        point = threat.random_point(batch.x, generator=streams)
        seen = classifier(point, generator=streams.fork("seen")).logits.double()
        away = seen - seen.gather(1, label) - mean
        mean += away / (count + 1)
        spread += away.square() * count / (count + 1)
    distance = (logits.gather(1, label) - logits).double() / spread.sqrt()
    return _sorted(ranked, distance.gather(1, ranked))


def _sorted(classes: Tensor, distance: Tensor) -> Tensor:
    """Classes by their distances, in the order in which they come where these are equal or none."""
    return classes.gather(1, distance.nan_to_num(torch.inf, torch.inf).argsort(dim=1, stable=True))
