"""The fast gradient sign method: one linear step to the edge of the ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, norm_ball
from .base import Cost, GradientAttack, Images, Labels


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of steepest ascent. `early_stop` has nothing to stop.

    **Fields**
    - `rel_step_size`: step length as a fraction of `threat.epsilon`.
    - `random_start`: start at a random point of the ball instead of at `x`; Wong et al. 2020
      (arXiv:2001.03994) pair it with a step of 1.25.
    - `edge_start`: start at a random point of the ball's edge instead, for Linf at a random corner. With a step of 2
      the slope is taken at a corner, and the step ends at one.

    **Cost**: one estimate per example.
    **Source**: Goodfellow et al. 2015, arXiv:1412.6572; for random signs, Tramèr et al. 2018, arXiv:1705.07204
    (R+FGSM, which starts within the ball and steps through what is left of epsilon).
    """

    rel_step_size: float = 1.0
    random_start: bool = False
    edge_start: bool = False

    def cost(self, classes: int) -> Cost:
        return Cost(estimates=1)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        x = x.detach()
        streams = Streams.of(generator, len(x))
        threat = norm_ball(threat, "`FGSM`")
        objective = self.objective.for_goal(threat.goal)
        x_adv = self._start(x, threat, streams)
        est = self.gradient.estimate(classifier, objective, x_adv, y, generator=streams)
        step_size = self.rel_step_size * threat.epsilon
        return threat.settle(x_adv + step_size * threat.steepest_ascent(est.grad), x)

    def _start(self, x: Images, threat: NormBall, streams: Streams) -> Images:
        if not (self.random_start or self.edge_start):
            return x
        start = threat.random_start(x, generator=streams)
        if not self.edge_start:
            return start
        return threat.project(x + threat.epsilon * threat.steepest_ascent(start - x), x)
