"""The fast gradient sign method: one linear step to the edge of the ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import GradientAttack, Images, Labels


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of steepest ascent. `early_stop` has nothing to stop.

    **Fields**
    - `rel_step_size`: step length as a fraction of `threat.epsilon`.
    - `random_start`: start at a random point of the ball instead of at `x`; Wong et al. 2020
      (arXiv:2001.03994) pair it with a step of 1.25.

    **Cost**: one estimate per example.
    **Source**: Goodfellow et al. 2015, arXiv:1412.6572.
    """

    rel_step_size: float = 1.0
    random_start: bool = False

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
        objective = self.objective.for_goal(threat.goal)
        x_adv = threat.random_start(x, generator=streams) if self.random_start else x
        est = self.gradient.estimate(classifier, objective, x_adv, y, generator=streams)
        step_size = self.rel_step_size * threat.epsilon
        return threat.settle(x_adv + step_size * threat.steepest_ascent(est.grad), x)
