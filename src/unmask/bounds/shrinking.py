"""Balls that shrink while something in them fools: how the nearest points found are drawn nearer still."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import Unsupported
from ..gradients import Exact
from ..judge import fooled
from ..objectives import Objective, Targeted, Towards, margin_loss
from .complete.branch_attack import BranchAndBound
from .found import Found

# Shares by which a radius shrinks: at first, at most, and where the search ends. They grow by half after a success and
# fall to a half, or under branch and bound to a quarter, after a failure. Ours.
_FIRST, _MOST = 0.02, 0.2
_LEAST_DESCENT, _LEAST_BRANCHES = 1e-4, 2e-3


def by_descent(found: Found, *, trials: int = 20, steps: int = 10) -> None:
    """Short descents in balls a little smaller than each point's own, from that point drawn into them.

    **Cost**: up to `trials * (steps + 1)` estimates per example, along the exact gradient.
    **Source**: the adaptive radius is Rony et al. 2019's (arXiv:1811.09600). **Differs**: every radius gets several
    steps, and it shrinks only from what fooled.
    """
    shrink = torch.full_like(found.distance, _FIRST)
    for _ in range(trials):
        some = _to_shrink(found)
        if not len(some):
            return
        before = found.distance[some]
        _descend(found, some, before * (1 - shrink[some]), steps)
        nearer = found.distance[some] < before
        shrink[some] = torch.where(nearer, 1.5 * shrink[some], shrink[some] / 2).clamp(_LEAST_DESCENT, _MOST)


def _descend(found: Found, some: Tensor, radius: Tensor, steps: int) -> None:
    """One descent in each of the balls of that radius; `found` keeps the first points that fool."""
    x, y, streams = found.x[some], found.y[some], found.streams.fork("shrinking")[some]
    x_adv, objective = found.threat.within(found.x_adv[some], x, radius), _towards_the_point(found, some)
    for step in range(steps + 1):
        est = Exact().estimate(found.classifier, objective, x_adv, y, generator=streams)
        won = fooled(est.outputs, y, found.threat)
        found.keep(some[won], x_adv[won])
        stay = (~won).nonzero()[:, 0]
        if not len(stay) or step == steps:
            return
        some, x, y, x_adv, radius = some[stay], x[stay], y[stay], x_adv[stay], radius[stay]
        streams, objective = streams[stay], objective.take(stay)
        length = 0.3 * (1 - step / steps) * radius
        x_adv = found.threat.within(found.threat.ascend(x_adv, est.grad[stay], length), x, radius)


def _towards_the_point(found: Found, some: Tensor) -> Objective:
    """Pulls towards the class of each point that stands, or of the goal."""
    if found.threat.goal == "targeted":
        return Towards(margin_loss)
    logits = found.classifier.predict(found.x_adv[some], generator=found.streams[some]).logits
    return Targeted(logits.argmax(1))


def by_branches(found: Found, *, branches: int = 500, elements: int = 300) -> None:
    """Branch and bound in balls a little smaller than each point's own; nothing on networks that it does not know.

    **Cost**: some ten runs of `BranchAndBound` per example.
    """
    attack = BranchAndBound(branches=branches, elements=elements)
    with suppress(Unsupported):
        for i in _to_shrink(found).tolist():
            one, shrink = torch.tensor([i], device=found.x.device), _FIRST
            while shrink >= _LEAST_BRANCHES:
                before = float(found.distance[i])
                ball = replace(found.threat, epsilon=before * (1 - shrink))
                found.offer(attack, f"branches in {ball.epsilon}", one, ball)
                nearer = float(found.distance[i]) < before
                shrink = min(1.5 * shrink, _MOST) if nearer else shrink / 4


def _to_shrink(found: Found) -> Tensor:
    """The examples that have a point, and not at `x` itself."""
    return ((found.distance > 0) & found.distance.isfinite()).nonzero()[:, 0]
