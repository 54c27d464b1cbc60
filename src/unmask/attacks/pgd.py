"""Projected gradient descent, the field's plain attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..classifier import Classifier
from ..judge import fooled
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, norm_ball
from .base import Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent, overwrite, restarts


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient ascent from random starts.

    Returns, per example, the first iterate that fools an estimate, else the one with the largest objective.

    **Fields**
    - `steps`: number of updates, at least 1.
    - `rel_step_size`: step length as a fraction of `threat.epsilon`.
    - `restarts`: independent random starts; the best over all of them is kept.
    - `random_start`: start at a random point of the ball instead of at `x`.
    - `last`: return the last iterate of an example that was not fooled on the way, as the paper does; it is not
      scored, which saves an estimate. For training.

    **Cost**: at most `restarts * (steps + 1)` estimates per example, the last of them a score alone, `restarts * steps`
    with `last`; one that is fooled leaves at once.
    **Source**: Madry et al. 2018, arXiv:1706.06083.
    **Differs**: the paper keeps the last iterate.
    """

    steps: int = 40
    rel_step_size: float = 0.0625
    restarts: int = 1
    random_start: bool = True
    last: bool = False

    ascends: ClassVar[bool] = True

    def describe(self) -> str:
        return f"PGD-{self.steps}" + (f", {self.restarts} restarts" if self.restarts > 1 else "")

    def cost(self, classes: int) -> Cost:
        return Cost(estimates=self.restarts * (self.steps + (not self.last)))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        threat, x = norm_ball(threat, "`PGD`"), x.detach()
        whole = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        best = Incumbent(x)
        for _, batch in restarts(self.restarts, whole, best):
            self._ascend(classifier, batch, threat, best)
        return threat.settle(best.x_adv, x)

    def _ascend(self, classifier: Classifier, batch: Batch, threat: NormBall, best: Incumbent) -> None:
        x_adv = threat.random_start(batch.x, generator=batch.streams) if self.random_start else batch.x
        x_best, value_best = x_adv.clone(), x_adv.new_empty(0)
        step_size, project = self.rel_step_size * threat.epsilon, threat.projection(batch.x)
        for step in range(self.steps + (not self.last)):  # the last estimate scores the last iterate
            look = self.gradient.estimate if step < self.steps else self.gradient.scored
            est = look(classifier, batch.objective, x_adv, batch.y, generator=batch.streams)
            grad = est.grad
            if step == 0:
                value_best = torch.full_like(est.value, -torch.inf)
            overwrite(est.value > value_best, (x_best, x_adv), (value_best, est.value))
            if self.early_stop and (won := fooled(est.outputs, batch.y, threat)).any():
                best.fooled(batch, won, x_adv)
                batch, x_adv, grad, x_best, value_best = batch.keep(~won, x_adv, grad, x_best, value_best)
                if not len(batch):
                    return
                project = threat.projection(batch.x)
            if step < self.steps:
                x_adv = project(threat.steepest_ascent(grad).mul_(step_size).add_(x_adv))
        best.offer(batch.index, x_adv if self.last else x_best, value_best)
