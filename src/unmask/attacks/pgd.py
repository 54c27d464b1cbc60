"""Projected gradient descent, the field's plain attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..judge import fooled
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import per_example
from .base import GradientAttack, Images, Labels


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient ascent from random starts.

    Returns, per example, the first iterate that fools an estimate, else the iterate with the largest objective.

    **Fields**
    - `steps`: number of updates, at least 1.
    - `rel_step_size`: step length as a fraction of `threat.epsilon`.
    - `restarts`: independent random starts; the best over all of them is kept.
    - `random_start`: start at a random point of the ball instead of at `x`.

    **Cost**: at most `restarts * (steps + 1)` estimates per example; one that is fooled leaves the batch at once.
    **Source**: Madry et al. 2018, arXiv:1706.06083.
    **Differs**: the paper keeps the last iterate.
    """

    steps: int = 40
    rel_step_size: float = 0.0625
    restarts: int = 1
    random_start: bool = True

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        streams = Streams.of(generator, len(x))
        best, best_value = x.clone(), x.new_full((len(x),), -torch.inf)
        step_size = self.rel_step_size * threat.epsilon
        left = torch.arange(len(x), device=x.device)
        for _ in range(self.restarts):
            if not len(left):
                break
            x0, labels, part, objective = x[left], y[left], streams[left], self.objective.take(left)
            x_adv = threat.random_start(x0, generator=part) if self.random_start else x0
            for step in range(self.steps + 1):
                est = self.gradient.estimate(classifier, objective, x_adv, labels, generator=part)
                won = fooled(est.outputs, labels, threat) if self.early_stop else None
                value = est.value if won is None else est.value.masked_fill(won, torch.inf)
                better = value > best_value[left]
                best[left] = torch.where(per_example(better, x_adv), x_adv, best[left])
                best_value[left] = torch.where(better, value, best_value[left])
                grad = est.grad
                if won is not None and won.any():
                    stay = (~won).nonzero()[:, 0]
                    left, x0, labels, part = left[stay], x0[stay], labels[stay], part[stay]
                    x_adv, grad, objective = x_adv[stay], grad[stay], objective.take(stay)
                    if not len(left):
                        break
                if step < self.steps:
                    x_adv = threat.project(x_adv + step_size * threat.steepest_ascent(grad), x0)
            streams = streams.fork("restart")
        return best
