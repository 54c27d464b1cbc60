"""Auto-PGD towards each of the likeliest wrong classes in turn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch

from ..classifier import Classifier
from ..errors import Unsupported, UnusableInput
from ..objectives import TargetedDLR, TargetedObjective
from ..randomness import Streams
from ..threat import ThreatModel, norm_ball
from .apgd import APGD
from .base import Attack, Cost, GradientAttack, Images, Labels, Setting
from .batch import Batch, Incumbent, restarts
from .target_classes import cost_of_nearest, likeliest, nearest


@dataclass(frozen=True, kw_only=True)
class TargetedAPGD(GradientAttack):
    """One run of APGD for each target class; examples that are fooled, by whatever wrong class, leave.

    **Fields**
    - `targets`: number of target classes; capped by the classes there are.
    - `order`: which come first: the `likeliest` wrong ones at `x`, or those whose linearised boundaries are `nearest`.
      Where all are aimed at, the likeliest.
    - `steps`: number of updates for each target.
    - `objective`: a targeted objective without targets: `TargetedDLR()` or `Targeted()`.

    **Cost**: one forward to rank the classes (and `cost_of_nearest`), then at most `targets * (steps + 1)` estimates
    per example (`steps + 3` under L1).
    **Raises** `Unsupported` for a targeted goal, where the class is given: use `APGD`.
    **Source**: Croce & Hein 2020, arXiv:2003.01690, section 4.
    **Differs**: the order by distance is ours. Where a class has a small logit and a steep slope, the nine likeliest of
    1,000 miss it (`benchmarks/README.md`).
    """

    targets: int = 9
    order: Literal["likeliest", "nearest"] = "likeliest"
    steps: int = 100
    rho: float = 0.75
    objective: TargetedObjective = TargetedDLR()

    chooses_targets: ClassVar[bool] = True
    ascends: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.order not in ("likeliest", "nearest"):
            raise UnusableInput(f"the order is {self.order!r}; choose likeliest or nearest")

    def describe(self) -> str:
        which = "nearest " * (self.order == "nearest")
        return f"targeted APGD-{self.steps}, {self.targets} {which}class{'es' * (self.targets > 1)}"

    def fit(self, setting: Setting) -> Attack | None:
        """As every gradient attack; at no more classes than there are."""
        fewer = replace(self, targets=min(self.targets, max(setting.classes - 1, 1)))
        return GradientAttack.fit(fewer, setting)

    def cost(self, classes: int) -> Cost:
        aims = min(self.targets, classes - 1)
        order = cost_of_nearest(classes) if self.order == "nearest" and aims < classes - 1 else Cost()
        return Cost(forwards=1 + order.forwards, estimates=order.estimates + aims * (self.steps + 3))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if threat.goal == "targeted":
            raise Unsupported("`TargetedAPGD` chooses its own targets; under a targeted goal use `APGD`")
        threat, x = norm_ball(threat, "`TargetedAPGD`"), x.detach()
        whole = Batch.whole(x, y, generator, self.objective)
        with torch.no_grad():
            logits = classifier(x, generator=whole.streams).logits
        if self.order == "nearest" and self.targets < logits.shape[1] - 1:
            ranked = nearest(logits, whole, classifier, threat, self.gradient)
        else:
            ranked = likeliest(logits, y)
        apgd = APGD(steps=self.steps, rho=self.rho, gradient=self.gradient, early_stop=self.early_stop)
        best = Incumbent(x)
        for rank, batch in restarts(min(self.targets, logits.shape[1] - 1), whole, best, "target"):
            aimed = replace(batch, objective=self.objective.aim(ranked[batch.index, rank]))
            apgd.ascend(classifier, aimed, threat, best)
        return threat.settle(best.x_adv, x)
