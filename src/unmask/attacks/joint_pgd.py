"""Fools the classifier and passes the detector, without a weight between the two."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

from ..classifier import Classifier
from ..errors import Unsupported, UnusableInput
from ..gradients import Exact, GradientEstimator
from ..judge import fooled
from ..objectives import Objective, Targeted, margin_loss
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, norm_ball
from ..types import Outputs, per_example
from .base import Ascent, Attack, Cost, Images, Labels, Setting
from .batch import Batch, Incumbent, restarts
from .target_classes import likeliest


@dataclass(frozen=True)
class Acceptance(Objective):
    """How far an input is from being rejected: minus the detector's score; zero without a detector."""

    def __call__(self, outputs: Outputs, y: Labels) -> Tensor:
        score = outputs.detector_score
        return 0 * outputs.logits.sum(1) if score is None else -score

    def for_goal(self, goal: str) -> Objective:
        return self


@dataclass(frozen=True)
class Pending(Objective):
    """Of two objectives the one that is not yet reached: the first as long as it is not positive, then the second."""

    first: Objective
    second: Objective

    def __call__(self, outputs: Outputs, y: Labels) -> Tensor:
        first = self.first(outputs, y)
        return torch.where(first > 0, self.second(outputs, y), first)

    def take(self, index: Tensor) -> Pending:
        return Pending(self.first.take(index), self.second.take(index))


@dataclass(frozen=True, kw_only=True)
class JointPGD(Attack):
    """Projected gradient ascent on whichever of classifier and detector still holds.

    A weighted sum of both losses wastes its steps on the one that is already fooled, or undoes it. Here

    - `selective`: each step follows the classifier's gradient where the prediction is right, else the detector's;
    - `orthogonal`: the same, less its component along the other gradient, so that to first order a step does not undo
      what the other has reached.

    Returns, per example, the first iterate that fools both, else the one whose worse half is best.

    **Fields**
    - `rule`: see above.
    - `steps`, `rel_step_size`: as for `PGD`, but a step goes along the gradient itself, as long as the norm's steepest
      step would be: under Linf its sign would forget which pixels matter to whom, and with it what is orthogonal.
      Steps shrink linearly to a tenth.
    - `random_start`: start at a random point of the ball instead of at `x`.
    - `targets`: so many wrong classes are aimed at one after another, those of the largest logit at `x` first, by what
      is left; 0 lets every step take the wrong class that is nearest. Which class the detector lets pass is not known
      beforehand.
    - `gradient`: how either slope is estimated.
    - `early_stop`: turn off for random networks and detectors.

    **Cost**: `steps + 1` estimates per example for `selective`, twice as many for `orthogonal`; as often as there are
    `targets`, and one forward to rank them.
    **Raises** `Unsupported` where `targets` meets a goal that names the class.
    **Source**: Bryniarski et al. 2021, arXiv:2106.15023, section 3. **Differs**: the step shrinks.
    """

    rule: Literal["selective", "orthogonal"] = "selective"
    steps: int = 100
    rel_step_size: float = 0.05
    random_start: bool = False
    targets: int = 0
    gradient: GradientEstimator = Exact()
    early_stop: bool = True

    needs_gradient: ClassVar[bool] = True

    @property
    def ascent(self) -> Ascent:
        return self.gradient.slopes

    def describe(self) -> str:
        return f"joint PGD-{self.steps}, {self.rule}" + (f", {self.targets} classes" if self.targets else "")

    def fit(self, setting: Setting) -> Attack | None:
        """Along the setting's gradient; None without a detector, or where it has no classes to choose from."""
        if not setting.detector or (self.targets and setting.classes < 3):
            return None
        targets = min(self.targets, setting.classes - 1)
        return replace(self, gradient=setting.gradient, early_stop=not setting.random, targets=targets)

    def __post_init__(self) -> None:
        if self.rule not in ("selective", "orthogonal"):
            raise UnusableInput(f"the rule is {self.rule!r}; choose selective or orthogonal")

    def cost(self, classes: int) -> Cost:
        runs = (2 if self.rule == "orthogonal" else 1) * (min(self.targets, classes - 1) or 1)
        return Cost(forwards=bool(self.targets), estimates=runs * (self.steps + 1))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        threat, x = norm_ball(threat, "`JointPGD`"), x.detach()
        best = Incumbent(x)
        if not self.targets:
            self._ascend(
                classifier, Batch.whole(x, y, generator, margin_loss.for_goal(threat.goal)), threat, best
            )
            return threat.settle(best.x_adv, x)
        if threat.goal == "targeted":
            raise Unsupported(
                "`JointPGD` with `targets` chooses its own; under a targeted goal use targets=0"
            )
        whole = Batch.whole(x, y, generator, Targeted())
        with torch.no_grad():
            logits = classifier(x, generator=whole.streams).logits
        ranked = likeliest(logits, y)
        for rank, batch in restarts(min(self.targets, logits.shape[1] - 1), whole, best, "target"):
            aimed = replace(batch, objective=Targeted(ranked[batch.index, rank]))
            self._ascend(classifier, aimed, threat, best)
        return threat.settle(best.x_adv, x)

    def _ascend(self, classifier: Classifier, batch: Batch, threat: NormBall, best: Incumbent) -> None:
        """One run towards the batch's objective and past the detector; what it finds goes to `best`."""
        passes = Acceptance()
        x_adv = threat.random_start(batch.x, generator=batch.streams) if self.random_start else batch.x
        project = threat.projection(batch.x)
        for step in range(self.steps + 1):  # the last estimate scores the last iterate
            if not len(batch):
                break
            grad, outputs = self._slope(classifier, batch, x_adv, passes)
            reached = fooled(outputs, batch.y, threat)
            # A detector's score has a unit of its own: what counts is first the sign of either, then the margin loss.
            has_class, has_passed = batch.objective(outputs, batch.y), passes(outputs, batch.y)
            value = torch.minimum(has_class, torch.zeros_like(has_class)) + torch.where(
                has_class > 0, has_passed.clamp_max(0).exp(), torch.zeros_like(has_passed)
            )
            best.offer(batch.index, x_adv, value)
            if self.early_stop and reached.any():
                best.fooled(batch, reached, x_adv)
                batch, x_adv, grad = batch.keep(~reached, x_adv, grad)
                project = threat.projection(batch.x)
            if step < self.steps and len(batch):
                size = self.rel_step_size * threat.epsilon * (1 - 0.9 * step / self.steps)
                x_adv = project(_along(grad, threat).mul_(size).add_(x_adv))

    def _slope(
        self, classifier: Classifier, batch: Batch, x_adv: Images, passes: Objective
    ) -> tuple[Images, Outputs]:
        """Gradient and outputs; what fools the classifier is the batch's objective."""
        wrong = batch.objective
        if self.rule == "selective":
            pending = Pending(wrong, passes)
            est = self.gradient.estimate(classifier, pending, x_adv, batch.y, generator=batch.streams)
            return est.grad, est.outputs
        first = self.gradient.estimate(classifier, wrong, x_adv, batch.y, generator=batch.streams)
        second = self.gradient.estimate(classifier, passes, x_adv, batch.y, generator=batch.streams)
        fooling = first.value > 0
        along = torch.where(per_example(fooling, x_adv), second.grad, first.grad)
        across = torch.where(per_example(fooling, x_adv), first.grad, second.grad)
        return orthogonal(along, across), first.outputs


def _along(grad: Images, threat: NormBall) -> Images:
    """The gradient, scaled to the Euclidean length of the norm's own steepest step."""
    length = grad.flatten(1).norm(dim=1)
    wanted = threat.steepest_ascent(grad).flatten(1).norm(dim=1)
    return grad * per_example(wanted / torch.where(length > 0, length, torch.ones_like(length)), grad)


def orthogonal(grad: Images, across: Images) -> Images:
    """`grad` without its component along `across`; as it is where nothing would be left of it, or `across` is zero."""
    length = across.flatten(1).square().sum(1)
    share = (grad * across).flatten(1).sum(1) / torch.where(length > 0, length, torch.ones_like(length))
    rest = grad - per_example(share, grad) * across
    lost: Bool[Tensor, " batch"] = rest.flatten(1).norm(dim=1) <= 1e-6 * grad.flatten(1).norm(dim=1)
    return torch.where(per_example(lost, grad), grad, rest)
