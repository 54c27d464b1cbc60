"""Examples from which no slope leads away: walks from outside, and searches, in ever smaller balls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import torch
from jaxtyping import Bool
from torch import Tensor

from ..attacks import Attack, BoundaryWalk, CoordinateSearch, Others, Setting, search
from ..errors import GradientFailed, Unsupported
from ..gradients import GradientEstimator
from ..threat import NormBall
from .found import Found

# Radii, as shares of the threat's: from far outside, by halves and then by less, for what counts is the distance. Ours.
_WALKS = (4.0, 2.0, 1.0, 0.5, 0.25)
_SEARCHES = (4.0, 2.8, 2.0, 1.4, 1.0, 0.7, 0.5, 0.35, 0.25, 0.18, 0.125)
_FAILURES = 3  # in balls each smaller than the last, after which none is expected to succeed; ours


def by_walks(
    found: Found,
    flat: Bool[Tensor, " batch"],
    threat: NormBall,
    gradients: Sequence[GradientEstimator],
    *,
    steps: int,
) -> None:
    """Walks from the other images along the boundary.

    **Cost**: on each `flat` example up to five walks of three starts along each gradient.
    """
    classes = found.classifier.predict(found.x, generator=found.streams).logits.argmax(1)
    for number, gradient in enumerate(gradients):
        walk = BoundaryWalk(steps=steps, others=Others(found.x, classes), gradient=gradient)
        # What this network cannot run, or whose own backward refuses, is left out.
        with suppress(Unsupported, GradientFailed):
            _smaller(found, flat, threat, walk, f"walk {number}", _WALKS)


def by_search(found: Found, flat: Bool[Tensor, " batch"], threat: NormBall, *, queries: int) -> None:
    """Searches without any gradient: random search, and one feature after the other on vectors of few.

    **Cost**: on each `flat` example up to eleven times `queries` forwards of each search.
    """
    setting = Setting(shape=tuple(found.x.shape[1:]))
    for attack in (search(threat, queries=queries), CoordinateSearch(queries=queries).fit(setting)):
        if attack is not None:
            with suppress(Unsupported):  # a shape that it has no moves for
                _smaller(found, flat, threat, attack, attack.describe(), _SEARCHES)


def _smaller(
    found: Found, flat: Tensor, threat: NormBall, attack: Attack, tag: str, shares: tuple[float, ...]
) -> None:
    """In one ball after the other, on those who have no point in it; who fails in several leaves.

    Only a failure after a point has been found outside counts: far out a start may be of no use.
    """
    failures = torch.where(flat, 0, _FAILURES)
    for share in shares:
        ball = threat.scaled(share)
        some = (failures < _FAILURES) & (found.distance >= ball.epsilon)
        if not some.any():
            continue
        found.offer(attack, f"{tag} {share}", some.nonzero()[:, 0], ball)
        found.walk_back()
        failures += some & (found.distance >= ball.epsilon) & found.distance.isfinite()
