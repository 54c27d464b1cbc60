"""Which gradients to try, for an audit's race and a bound's search. Diagnosis proposes them; measurement decides."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .gradients import (
    BPDA,
    EOT,
    Exact,
    FiniteDifference,
    Float64,
    GradientEstimator,
    LogitScale,
    Smoothing,
    Widened,
)
from .gradients.repaired import Repaired
from .gradients.widened import narrow
from .objectives import Objective, Undetected, cross_entropy, margin_loss
from .threat import ThreatModel
from .tracing.repair.propose import propose
from .tracing.repair.regions.learned import Learned
from .tracing.suspect import Analysis, Asks, Group

# A gradient that is lost or lies, and one that is there and dies.
LOST = (Asks.REPLACE, Asks.REOPEN)
DEAD = (Asks.LESS_GAIN, Asks.RESCALE)


@dataclass(frozen=True)
class Candidate:
    """An entrant of the race.

    **Fields**
    - `name`: for people, distinct.
    - `at`: what it does at each suspect, in words.
    - `passes`: forwards of one estimate.
    """

    name: str
    gradient: GradientEstimator
    objective: Objective = margin_loss
    at: dict[Group, str] = field(default_factory=dict)
    passes: int = 1

    @property
    def exact(self) -> bool:
        """Whether it is the gradient that a standard attack follows."""
        return self.gradient == Exact()


def per_element(threat: ThreatModel, x: Tensor) -> float:
    """How far every element can move at once: epsilon in L-inf, `epsilon / sqrt(n)` in L2, `epsilon / n` in L1.

    Where few pixels change, as in the Euclidean ball around; where radii differ, by their mean.

    Widths of smoothing and of finite differences are shares of it, so that their points lie as far away as an attack's.
    """
    ball = threat.around(x.shape[1:])
    weights = [1.0] if ball.weights is None else ball.weights
    plain = replace(ball, weights=None).distance(torch.ones_like(x[:1]), torch.zeros_like(x[:1]))
    return ball.epsilon * sum(weights) / len(weights) / float(plain)


def candidates(
    analysis: Analysis,
    threat: ThreatModel,
    *,
    deterministic: bool,
    detector: bool,
    draws: int,
    surrogate: bool = False,
    learned: Learned | None = None,
) -> list[Candidate]:
    """All entrants, the exact gradient first.

    **Arguments**
    - `draws`: forwards that one averaged gradient of a random network may take.
    - `surrogate`: the classifier brings a surrogate of its own.
    - `learned`: a bridge that was fitted over what autograd cannot see.

    Random networks get every one of them under EOT, whose number of draws follows the noise up to `draws` forwards, so
    that no entrant costs much more than another: the copies that smoothing and finite differences look at are draws
    too.
    """
    found = [Candidate("exact", Exact())]
    repairs = propose(analysis, learned)
    found += [Candidate(r.name, Repaired(r.rewrite), at=r.at) for r in repairs]
    if analysis.asking(Asks.RESCALE):
        at = {s.group: "logits rescaled before the loss" for s in analysis.asking(Asks.RESCALE)}
        found += [Candidate("logit scale", LogitScale(Exact()), cross_entropy, at)]
        found += (
            [Candidate("logit scale, repaired", LogitScale(Repaired(repairs[0].rewrite)), at=at)]
            if repairs
            else []
        )
    if analysis.asking(*DEAD):
        at = {s.group: "float64" for s in analysis.asking(*DEAD)}
        found.append(Candidate("float64", Float64(Exact()), at=at))
    if narrow(v.dtype for r in analysis.base.records for v in r.outputs):
        at = {s.group: "a float32 copy is differentiated" for s in analysis.asking(*DEAD, Asks.FINITE)}
        found.append(Candidate("float32 copy", Widened(), at=at, passes=2))
    if analysis.asking(*LOST, *DEAD, Asks.FINITE):
        # Slopes at one scale that mean nothing may still mean something at the attack's scale.
        size = per_element(threat, analysis.base.x.detach())
        sigma = size / 2
        at = {s.group: "gradients averaged over noisy copies of the input" for s in analysis.suspects}
        copies = 8
        found.append(
            Candidate("smoothed", Smoothing(Exact(), sigma=sigma, draws=copies), at=at, passes=copies + 1)
        )
        if repairs:
            repaired = Smoothing(Repaired(repairs[0].rewrite), sigma=sigma, draws=copies)
            found.append(Candidate("smoothed, repaired", repaired, at=at, passes=copies + 1))
        at = {s.group: "finite differences of the whole network" for s in analysis.suspects}
        delta = size / 4
        directions = FiniteDifference(samples=16, delta=delta)
        found.append(Candidate("finite differences", directions, at=at, passes=2 * directions.samples + 1))
    if surrogate:
        at = {s.group: "the surrogate that the defence brings" for s in analysis.suspects}
        found.append(Candidate("BPDA, own surrogate", BPDA(), at=at, passes=2))
    if detector:
        found = [replace(c, objective=Undetected(c.objective)) for c in found]
    if not deterministic:
        found = [
            # Two draws at least: EOT goes on only where they differ.
            replace(c, name=f"EOT, {c.name}", gradient=EOT(c.gradient, max_draws=max(2, draws // c.passes)))
            for c in found
        ]
    return found
