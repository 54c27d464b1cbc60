"""Projected gradient ascent over which pixels change and what they become, for few pixels and patches alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..classifier import Classifier
from ..errors import Unsupported
from ..judge import fooled
from ..randomness import Streams
from ..threat import FewPixels, ThreatModel
from ..types import per_example
from .base import Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent, overwrite, restarts

_MEMORY = 0.75  # of the scores, from step to step. Ours
_HOLD = 1.0  # head start of a random support: it is left once slopes outweigh it, in a few steps. Ours
_PATIENCE = 3  # steps for which a support may stay before another one is tried; the paper's


@dataclass(frozen=True, kw_only=True)
class SparsePGD(GradientAttack):
    """Two ascents at once: of a full image of values, and of a score for every pixel, which decides who changes.

    An allowed set with the largest scores shows its part of the values; the rest is `x`. A pixel's score grows by what
    its change is worth to first order, so that pixels that do not change now may take the place of those that do.
    Returns, per example, the first iterate that fools an estimate, else the one with the largest objective.

    **Fields**
    - `steps`: number of updates of a restart, at least 1.
    - `restarts`: independent random starts; in every second one only the values of pixels that change are moved.
    - `rel_step_size`: of the values, as a fraction of the box.
    - `rel_score_step`: of the scores, in units of the root of their number.

    **Cost**: at most `restarts * (steps + 1)` estimates per example.
    **Raises** `Unsupported` for the ball of a norm.
    **Source**: Zhong et al. 2024, arXiv:2405.05075 (sPGD, with its unprojected and its projected gradient).
    **Differs**: scores fade instead of being squashed; a support that stays gives way to a random one; sums over a
    square in place of a pixel's own score make it an attack for patches.
    """

    steps: int = 100
    restarts: int = 1
    rel_step_size: float = 0.25
    rel_score_step: float = 0.25

    ascends: ClassVar[bool] = True

    def describe(self) -> str:
        return f"sparse PGD-{self.steps}" + (f", {self.restarts} restarts" if self.restarts > 1 else "")

    def cost(self, classes: int) -> Cost:
        return Cost(estimates=self.restarts * (self.steps + 1))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if not isinstance(threat, FewPixels):
            raise Unsupported(
                f"`SparsePGD` changes few pixels or a patch, and the threat model is {threat.norm}; use `APGD`"
            )
        x = x.detach()
        whole = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        best = Incumbent(x)
        for number, batch in restarts(self.restarts, whole, best):
            self._ascend(classifier, batch, threat, best, projected=number % 2 == 1)
        return threat.settle(best.x_adv, x)

    def _ascend(
        self, classifier: Classifier, batch: Batch, threat: FewPixels, best: Incumbent, *, projected: bool
    ) -> None:
        low, high = threat.box
        shown = batch.streams.uniform(*batch.x.shape[1:], device=batch.x.device).to(batch.x.dtype)
        shown = shown.mul_(high - low).add_(low)
        scores = _fresh(threat, batch, 0)
        mask = threat.support(scores)
        stayed = torch.zeros(len(batch), dtype=torch.long, device=batch.x.device)
        x_best = batch.x.clone()
        value_best = batch.x.new_empty(0)
        for step in range(self.steps + 1):
            x_adv = torch.where(mask, shown, batch.x)
            est = self.gradient.estimate(classifier, batch.objective, x_adv, batch.y, generator=batch.streams)
            if step == 0:
                value_best = est.value.new_full((len(batch),), -torch.inf)
            overwrite(est.value > value_best, (x_best, x_adv), (value_best, est.value))
            grad = est.grad
            if self.early_stop and (won := fooled(est.outputs, batch.y, threat)).any():
                best.fooled(batch, won, x_adv)
                batch, shown, scores, mask, stayed, grad, x_best, value_best = batch.keep(
                    ~won, shown, scores, mask, stayed, grad, x_best, value_best
                )
                if not len(batch):
                    return
            if step == self.steps:
                break
            scores = _MEMORY * scores + self._push(threat.units(grad * (shown - batch.x)))
            slope = grad * mask if projected else grad
            shown = (shown + self.rel_step_size * (high - low) * slope.sign()).clamp_(low, high)
            new = threat.support(scores)
            stayed = torch.where((new == mask).flatten(1).all(1), stayed + 1, 0)
            if (over := stayed >= _PATIENCE).any():
                scores = torch.where(per_example(over, scores), _fresh(threat, batch, step + 1), scores)
                new, stayed = threat.support(scores), torch.where(over, 0, stayed)
            mask = new
        best.offer(batch.index, x_best, value_best)

    def _push(self, worth: Tensor) -> Tensor:
        """A step of the scores along what each unit's change is worth, whose length does not depend on the slopes'."""
        flat = worth.flatten(1)
        largest = flat.abs().amax(1, keepdim=True)
        flat = flat / torch.where(largest > 0, largest, 1)
        length = flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return (self.rel_score_step * flat.shape[1] ** 0.5 * flat / length).reshape(worth.shape)


def _fresh(threat: FewPixels, batch: Batch, step: int) -> Tensor:
    """Scores that hold a random support for a while."""
    # Streams of the step's own: an example's numbers do not depend on when others need new ones.
    held = threat.random_support(batch.x, generator=batch.streams.fork(f"support {step}")).to(batch.x.dtype)
    return _HOLD * threat.units(held.expand(batch.x.shape)).clamp(max=1)
