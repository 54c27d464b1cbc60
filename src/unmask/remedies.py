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
from .tracing.repair.propose import Repair, propose
from .tracing.repair.regions.learned import Learned
from .tracing.suspect import Analysis, Asks, Group, Suspect

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
    - `seconds`: that an estimate of one image takes, once that has been measured.
    """

    name: str
    gradient: GradientEstimator
    objective: Objective = margin_loss
    at: dict[Group, str] = field(default_factory=dict)
    passes: int = 1
    seconds: float = 0.0

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


def _repairs(analysis: Analysis, learned: Learned | None) -> list[Repair]:
    """Repairs of what is suspected, each with its namesake elsewhere, or else with the simplest there."""
    here = propose(analysis, learned)
    there = [] if analysis.elsewhere is None else propose(analysis.elsewhere)
    if not here or not there:
        return here or there
    names = dict.fromkeys(r.name for r in (*here, *there))
    pairs = [
        (name, *(next((r for r in some if r.name == name), some[0]) for some in (here, there)))
        for name in names
    ]
    return [Repair(name, a.rewrite.and_(b.rewrite), {**b.at, **a.at}) for name, a, b in pairs]


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

    def asking(*kinds: Asks) -> list[Suspect]:
        return [s for s in analysis.everywhere if s.symptom.asks in kinds]

    found = [Candidate("exact", Exact())]
    repairs = _repairs(analysis, learned)
    found += [Candidate(r.name, Repaired(r.rewrite), at=r.at) for r in repairs]
    if asking(Asks.RESCALE):
        at = {s.group: "logits rescaled before the loss" for s in asking(Asks.RESCALE)}
        found += [Candidate("logit scale", LogitScale(Exact()), cross_entropy, at)]
        found += (
            [Candidate("logit scale, repaired", LogitScale(Repaired(repairs[0].rewrite)), at=at)]
            if repairs
            else []
        )
    if asking(*DEAD):
        at = {s.group: "float64" for s in asking(*DEAD)}
        found.append(Candidate("float64", Float64(Exact()), at=at))
    if narrow(v.dtype for r in analysis.base.records for v in r.outputs):
        at = {s.group: "a float32 copy is differentiated" for s in asking(*DEAD, Asks.FINITE)}
        found.append(Candidate("float32 copy", Widened(), at=at, passes=2))
    if asking(*LOST, *DEAD, Asks.FINITE):
        # Slopes at one scale that mean nothing may still mean something at the attack's scale.
        size = per_element(threat, analysis.base.x.detach())
        sigma = size / 2
        at = {s.group: "gradients averaged over noisy copies of the input" for s in analysis.everywhere}
        copies = 8
        found.append(
            Candidate("smoothed", Smoothing(Exact(), sigma=sigma, draws=copies), at=at, passes=copies + 1)
        )
        if repairs:
            repaired = Smoothing(Repaired(repairs[0].rewrite), sigma=sigma, draws=copies)
            found.append(Candidate("smoothed, repaired", repaired, at=at, passes=copies + 1))
        at = {s.group: "finite differences of the whole network" for s in analysis.everywhere}
        delta = size / 4
        directions = FiniteDifference(samples=16, delta=delta)
        found.append(Candidate("finite differences", directions, at=at, passes=2 * directions.samples + 1))
    if surrogate:
        at = {s.group: "the surrogate that the defence brings" for s in analysis.everywhere}
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
