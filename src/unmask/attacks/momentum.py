"""Gradient ascent with a memory: for random networks, whose noise it averages over steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..judge import fooled
from ..randomness import Streams
from ..threat import ThreatModel, norm_ball
from .base import Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent


@dataclass(frozen=True, kw_only=True)
class MomentumPGD(GradientAttack):
    """Projected ascent along a running mean of the gradients, by steps that shrink to nothing.

    Meant for random networks. Averaging many draws at one point buys the same noise reduction as averaging one
    draw at each of many nearby points, but the latter moves meanwhile: one to three draws a step are enough. The
    *last* iterate is returned, not the one with the largest objective: of many iterates scored on one draw each,
    the largest is the luckiest.

    **Fields**
    - `steps`: number of updates, at least 1.
    - `rel_step_size`: length of the first step as a fraction of `threat.epsilon`; it falls linearly to zero.
    - `decay`: weight of the past in the running mean.
    - `random_start`: start at a random point of the ball instead of at `x`.
    - `max_draws`, `flips`: with more than one, an example is estimated again at the same point, up to so often,
      as long as the last estimate changed the sign of the running mean in more than a share `flips` of it, pixels
      weighed by their slope. What was drawn at the points before counts: where the memory has settled, one draw
      is enough.

    **Cost**: at most `steps * max_draws` estimates per example.
    **Source**: Dong et al. 2018, arXiv:1710.06081 (momentum). **Differs**: gradients enter with their own length
    instead of an L1 norm of one; shrinking steps; a random start. `benchmarks/eot_draws.py` compares.
    """

    steps: int = 60
    rel_step_size: float = 0.25
    decay: float = 0.9
    random_start: bool = True
    max_draws: int = 1
    flips: float = 0.1

    ascends: ClassVar[bool] = True

    def describe(self) -> str:
        return f"momentum PGD-{self.steps}" + ("" if self.random_start else " from the image")

    def __post_init__(self) -> None:
        if self.max_draws < 1:
            raise UnusableInput(f"`MomentumPGD` has max_draws={self.max_draws}; give at least 1")

    def cost(self, classes: int) -> Cost:
        return Cost(estimates=self.steps * self.max_draws)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        """As `Attack.run`."""
        threat, x = norm_ball(threat, "`MomentumPGD`"), x.detach()
        batch = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        best = Incumbent(x)
        x_adv = threat.random_start(x, generator=batch.streams) if self.random_start else x.clone()
        mean, project = torch.zeros_like(x), threat.projection(x)
        for step in range(self.steps):
            streams = batch.streams if self.max_draws == 1 else batch.streams.spawn("draws")
            est = self.gradient.estimate(classifier, batch.objective, x_adv, batch.y, generator=streams)
            before, mean = mean, mean.lerp(est.grad, 1 - self.decay)
            if self.max_draws > 1:
                self._draw_again(classifier, batch, x_adv, before, mean, streams)
            if self.early_stop and (won := fooled(est.outputs, batch.y, threat)).any():
                best.fooled(batch, won, x_adv)
                batch, x_adv, mean = batch.keep(~won, x_adv, mean)
                if not len(batch):
                    break
                project = threat.projection(batch.x)
            step_size = self.rel_step_size * threat.epsilon * (1 - step / self.steps)
            x_adv = project(threat.steepest_ascent(mean).mul_(step_size).add_(x_adv))
        else:
            best.offer(batch.index, x_adv, torch.zeros(len(batch), device=x.device))
        return threat.settle(best.x_adv, x)

    def _draw_again(
        self,
        classifier: Classifier,
        batch: Batch,
        x_adv: Images,
        before: Images,
        mean: Images,
        streams: Streams,
    ) -> None:
        """Estimates again where `mean`, which was `before`, is not settled; writes into `mean`."""
        part, left = replace(batch, streams=streams), torch.arange(len(batch), device=x_adv.device)
        for _ in range(self.max_draws - 1):
            part, left = part.keep(flipped(before, mean[left]) > self.flips, left)
            if not len(part):
                return
            est = self.gradient.estimate(
                classifier, part.objective, x_adv[left], part.y, generator=part.streams
            )
            before = mean[left]
            mean[left] = before.lerp(est.grad, 1 - self.decay)


def flipped(before: Images, after: Images) -> Float[Tensor, " batch"]:
    """Share of `after` whose sign is not that of `before`, elements weighed by their size; 0 where it is all zero.

    It is what a step by signs along `before` would have lost of the slope, of a most of one.
    """
    size = after.abs()
    return (size * (before.sign() != after.sign())).flatten(1).sum(1) / size.flatten(1).sum(1).clamp_min(
        1e-45
    )
