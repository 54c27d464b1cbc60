"""What an attack maximises: one value per example, never reduced over the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

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


def true_and_best_other(logits: Tensor, y: Labels) -> tuple[Tensor, Tensor]:
    """Logit of the label and the largest of the others, each `[batch]`."""
    true = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    return true, other


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Negative log-probability of the label. Its gradient underflows when the margin passes about 100 (float32)."""

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        return F.cross_entropy(outputs.logits, y, reduction="none")


@dataclass(frozen=True)
class Margin(Objective):
    """Largest other logit minus the label's: positive exactly where the example is misclassified.

    **Source**: Carlini & Wagner 2017, arXiv:1608.04644, their f6 without the hinge.
    """

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        true, other = true_and_best_other(outputs.logits, y)
        return other - true


@dataclass(frozen=True)
class DLR(Objective):
    """Difference of logits ratio: invariant to shift and scale of the logits. Needs at least three classes.

    **Source**: Croce & Hein 2020, arXiv:2003.01690, equation 6.
    **Differs**: a zero denominator (three equal logits) gives the plain margin instead of NaN.
    """

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        true, other = true_and_best_other(outputs.logits, y)
        top = outputs.logits.topk(3, dim=1).values
        spread = top[:, 0] - top[:, 2]
        return (other - true) / torch.where(spread > 0, spread, torch.ones_like(spread))


@dataclass(frozen=True, eq=False)
class Targeted(Objective):
    """Logit of a chosen class minus the label's."""

    targets: Labels

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        pair = outputs.logits.gather(1, torch.stack([self.targets, y], 1))
        return pair[:, 0] - pair[:, 1]

    def take(self, index: Tensor) -> Targeted:
        return Targeted(self.targets[index])


@dataclass(frozen=True, eq=False)
class TargetedDLR(Objective):
    """Targeted difference of logits ratio. Needs at least four classes for the paper's denominator.

    **Source**: Croce & Hein 2020, arXiv:2003.01690, equation 7.
    **Differs**: with three classes the denominator is the largest minus the smallest logit.
    """

    targets: Labels

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        logits = outputs.logits
        pair = logits.gather(1, torch.stack([self.targets, y], 1))
        top = logits.topk(min(4, logits.shape[1]), dim=1).values
        spread = top[:, 0] - (top[:, 2] + top[:, 3]) / 2 if top.shape[1] == 4 else top[:, 0] - top[:, -1]
        return (pair[:, 0] - pair[:, 1]) / torch.where(spread > 0, spread, torch.ones_like(spread))

    def take(self, index: Tensor) -> TargetedDLR:
        return TargetedDLR(self.targets[index])


@dataclass(frozen=True)
class TowardsLabel(Objective):
    """Cross-entropy pulled towards `y`, for a threat model whose goal is `targeted` (there `y` is the target)."""

    def __call__(self, outputs: Outputs, y: Labels) -> Values:
        return -F.cross_entropy(outputs.logits, y, reduction="none")


@dataclass(frozen=True)
class Undetected(Objective):
    """An objective minus a multiple of the detector's score where that score rejects: fool both.

    **Source**: Carlini & Wagner 2017, arXiv:1705.07263, section 3 (their combined loss, with a hinge on the score).
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


cross_entropy = CrossEntropy()
margin = Margin()
dlr = DLR()
