"""What an attack maximises: one value per example, never reduced over the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .errors import Unsupported
from .types import Outputs

Labels = Int[Tensor, " batch"]
Values = Float[Tensor, " batch"]


class Objective(ABC):
    """Maps outputs and labels to `[batch]`; larger means closer to the adversary's goal."""

    @abstractmethod
    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        """The value of each example, differentiable in the logits."""

    def take(self, index: Tensor) -> Objective:
        """The objective of a part of the batch. Only objectives with per-example fields need another one."""
        return self

    def for_goal(self, goal: str) -> Objective:
        """The objective itself where the goal is to leave `y`; else minus it, to reach `y`.

        Objectives that already name where they pull return themselves.
        """
        return Towards(self) if goal == "targeted" else self


@dataclass(frozen=True)
class Towards(Objective):
    """Minus an objective that pushes away from `y`: pulls towards `y`, for a goal that is `targeted`."""

    inner: Objective

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        return -self.inner(outputs, y)

    def take(self, index: Tensor) -> Towards:
        return Towards(self.inner.take(index))

    def for_goal(self, goal: str) -> Objective:
        return self


def true_and_best_other(logits: Tensor, y: Labels) -> tuple[Tensor, Tensor]:
    """Logit of the label and the largest of the others, each `[batch]`."""
    true = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return true, other


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Negative log-probability of the label.

    Its gradient underflows where the margin (see `MarginLoss`) is more than about 100 (float32).
    """

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        return F.cross_entropy(outputs.logits, y, reduction="none")


@dataclass(frozen=True)
class MarginLoss(Objective):
    """Minus the margin: the largest other logit minus the label's, positive exactly where the example is misclassified.

    Everywhere in this package a margin is the label's logit minus the largest other, positive where the example is
    classified correctly.

    **Source**: Carlini & Wagner 2017, arXiv:1608.04644, their f6 without the hinge.
    """

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        true, other = true_and_best_other(outputs.logits, y)
        return other - true


@dataclass(frozen=True)
class DLR(Objective):
    """Difference of logits ratio: invariant to shift and scale of the logits. Needs at least three classes.

    **Source**: Croce & Hein 2020, arXiv:2003.01690, equation 6.
    **Differs**: a zero denominator (three equal logits) gives the plain margin loss instead of NaN.
    """

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        true, other = true_and_best_other(outputs.logits, y)
        top = outputs.logits.topk(3, dim=1).values
        spread = top[:, 0] - top[:, 2]
        return (other - true) / torch.where(spread > 0, spread, torch.ones_like(spread))


@dataclass(frozen=True, eq=False)
class TargetedObjective(Objective):
    """Pulls towards a class of its own for each example.

    **Fields**
    - `targets`: the classes, or None for an attack that chooses them (`TargetedAPGD`).
    """

    targets: Labels | None = None

    def aim(self, targets: Labels) -> TargetedObjective:
        """The same objective at other targets."""
        return replace(self, targets=targets)

    def take(self, index: Tensor) -> TargetedObjective:
        return self if self.targets is None else replace(self, targets=self.targets[index])

    def for_goal(self, goal: str) -> Objective:
        return self

    def _pull(self, logits: Tensor, y: Labels) -> Values:
        if self.targets is None:
            name = type(self).__name__
            raise Unsupported(f"`{name}` has no targets; give `{name}(targets)` or use it in TargetedAPGD")
        pair = logits.gather(1, torch.stack([self.targets, y], 1))
        return pair[:, 0] - pair[:, 1]


@dataclass(frozen=True, eq=False)
class Targeted(TargetedObjective):
    """Logit of a chosen class minus the label's."""

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        return self._pull(outputs.logits, y)


@dataclass(frozen=True, eq=False)
class TargetedDLR(TargetedObjective):
    """Targeted difference of logits ratio. Needs at least four classes for the paper's denominator.

    **Source**: Croce & Hein 2020, arXiv:2003.01690, equation 7.
    **Differs**: with three classes the denominator is the largest minus the smallest logit.
    """

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        top = outputs.logits.topk(min(4, outputs.logits.shape[1]), dim=1).values
        spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 if top.shape[1] == 4 else top[:, 0] - top[:, -1]
        return self._pull(outputs.logits, y) / torch.where(spread > 0, spread, torch.ones_like(spread))


@dataclass(frozen=True)
class Undetected(Objective):
    """An objective minus a multiple of the detector's score where that score rejects: fool both.

    **Source**: Carlini & Wagner 2017, arXiv:1705.07263, section 3 (their combined loss, with a hinge on the
    score).
    """

    inner: Objective
    weight: float = 1.0

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        value = self.inner(outputs, y)
        if outputs.detector_score is None:
            return value
        return value - self.weight * outputs.detector_score.clamp_min(0)

    def take(self, index: Tensor) -> Undetected:
        return Undetected(self.inner.take(index), self.weight)

    def for_goal(self, goal: str) -> Objective:
        return Undetected(self.inner.for_goal(goal), self.weight)


@dataclass(frozen=True)
class Confident(Objective):
    """Another objective, up to a level that is enough: beyond it there is nothing more to gain, and no gradient.

    **Source**: Carlini & Wagner 2017, arXiv:1608.04644, their kappa.
    """

    inner: Objective
    confidence: float = 0.0

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        return self.inner(outputs, y).clamp_max(self.confidence)

    def take(self, index: Tensor) -> Confident:
        return Confident(self.inner.take(index), self.confidence)

    def for_goal(self, goal: str) -> Objective:
        return Confident(self.inner.for_goal(goal), self.confidence)


cross_entropy = CrossEntropy()
margin_loss = MarginLoss()
dlr = DLR()
