"""Auto-PGD: projected gradient ascent with momentum whose step size follows its own progress."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..classifier import Classifier
from ..judge import fooled
from ..randomness import Streams
from ..threat import L1, NormBall, ThreatModel, norm_ball
from ..types import per_example
from .apgd_l1 import ascend_l1
from .base import Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent, overwrite, restarts

_MOMENTUM = 0.75  # the paper's alpha, section 3.1


@dataclass(frozen=True, kw_only=True)
class APGD(GradientAttack):
    """Auto-PGD from random starts, with no step size to tune.

    Returns, per example, the first iterate that fools an estimate, else the iterate with the largest
    objective.

    **Fields**
    - `steps`: number of updates of a restart, at least 1.
    - `restarts`: independent random starts; the best over all of them is kept.
    - `rho`: share of steps between two checkpoints that must raise the objective, or the step size is halved.

    **Cost**: at most `restarts * (steps + 1)` estimates per example; one that is fooled leaves the batch at
    once. Under L1 two more per restart, where the radius changes.
    **Source**: Croce & Hein 2020, arXiv:2003.01690, algorithm 1; for L1, Croce & Hein 2021, arXiv:2103.01208.
    """

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75

    ascends: ClassVar[bool] = True

    def describe(self) -> str:
        return f"APGD-{self.steps}" + (f", {self.restarts} restarts" if self.restarts > 1 else "")

    def cost(self, classes: int) -> Cost:
        return Cost(estimates=self.restarts * (self.steps + 3))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        threat, x = norm_ball(threat, "`APGD`"), x.detach()
        whole = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        best = Incumbent(x)
        for _, batch in restarts(self.restarts, whole, best):
            self.ascend(classifier, batch, threat, best)
        return threat.settle(best.x_adv, x)

    def ascend(self, classifier: Classifier, batch: Batch, threat: NormBall, best: Incumbent) -> None:
        """One restart for one batch; what it finds goes to `best`."""
        if isinstance(threat, L1):
            ascend_l1(self, classifier, batch, threat, best)
        else:
            self._ascend(classifier, batch, threat, best)

    def _ascend(self, classifier: Classifier, batch: Batch, threat: NormBall, best: Incumbent) -> None:
        checkpoints = set(_checkpoints(self.steps))
        x_adv = threat.random_start(batch.x, generator=batch.streams)
        x_prev, x_best = x_adv, x_adv.clone()
        grad_best = torch.zeros_like(x_adv)
        step_size = per_example(x_adv.new_full((len(batch),), 2 * threat.epsilon), x_adv)
        halved = torch.zeros(len(batch), dtype=torch.bool, device=x_adv.device)
        value_best = value_mark = x_adv.new_empty(0)
        values: list[Tensor] = []  # from the last checkpoint's on
        mark, project = 0, threat.projection(batch.x)
        for step in range(self.steps + 1):  # the last estimate scores the last iterate
            est = self.gradient.estimate(classifier, batch.objective, x_adv, batch.y, generator=batch.streams)
            grad = est.grad
            if step == 0:
                value_best, value_mark = est.value.new_full((len(batch),), -torch.inf), est.value.clone()
            overwrite(est.value > value_best, (x_best, x_adv), (grad_best, grad), (value_best, est.value))
            values.append(est.value)

            if self.early_stop and (won := fooled(est.outputs, batch.y, threat)).any():
                best.fooled(batch, won, x_adv)
                state = (x_adv, x_prev, x_best, grad, grad_best, value_best, value_mark, step_size, halved)
                batch, *left = batch.keep(~won, *state, *values)
                if not len(batch):
                    return
                x_adv, x_prev, x_best, grad, grad_best, *left = left
                value_best, value_mark, step_size, halved, *values = left
                project = threat.projection(batch.x)
            if step == self.steps:
                break

            if step in checkpoints:
                stuck = ~halved & (value_best <= value_mark)  # condition 2
                course = torch.stack(values)
                rises = (course[1:] > course[:-1]).sum(0)
                halved = (rises < self.rho * (step - mark)) | stuck  # condition 1, or 2
                step_size = torch.where(per_example(halved, step_size), step_size / 2, step_size)
                if halved.any():
                    grad = grad.clone()  # the estimate's own may be anyone's memory
                    overwrite(halved, (x_adv, x_best), (grad, grad_best))
                values = [torch.where(halved, value_best, values[-1])]
                value_mark, mark = value_best.clone(), step

            # In memory that is there already: what is allocated anew costs more than the arithmetic.
            x_new = threat.steepest_ascent(grad)
            project(torch.addcmul(x_adv, x_new, step_size, out=x_new))
            if step > 0:
                onwards = torch.sub(x_adv, x_prev, out=x_prev).add_(x_adv)  # 2 x_k - x_(k-1)
                x_new = project(onwards.lerp_(x_new, _MOMENTUM))
            x_prev, x_adv = x_adv, x_new
        best.offer(batch.index, x_best, value_best)


def _checkpoints(steps: int) -> list[int]:
    """The steps `ceil(p_j * steps)` at which the step size may be halved (section 3.1).

    >>> _checkpoints(100)
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    shares = [0.0, 0.22]
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    return [math.ceil(round(share * steps, 9)) for share in shares[1:] if share < 1]
