"""Moves an image until a network's hidden layer takes it for an image of another class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..judge import fooled
from ..objectives import margin_loss
from ..randomness import Streams
from ..threat import ThreatModel, norm_ball
from .base import Attack, Cost, Images, Labels
from .batch import Batch, Incumbent


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMatching(Attack):
    """Descends on the squared distance between an image's hidden layer and that of a guide, an image of another class.

    Detectors that look at hidden layers see there what they see for clean images. Each image takes as its guide the
    one, among those that the classifier puts into another class (for a targeted goal: into the target), whose hidden
    layer is nearest. Returns, per example, the first iterate that fools classifier and detector, else the nearest to
    its guide.

    **Fields**
    - `features`: the hidden layer, images to `[batch, …]`, differentiable.
    - `guides`: `[n, channels, height, width]`, clean images of every class, not the attacked ones themselves.
    - `steps`, `rel_step_size`: as for `PGD`; the step shrinks linearly to a tenth.
    - `early_stop`: turn off for random networks and detectors.

    **Cost**: `steps + 1` forwards of the classifier; as many forwards and backwards of `features`, counted like the
    classifier's; two forwards for the choice of guides, and one for each guide.
    **Raises** `UnusableInput` where no guide is of another class.
    **Source**: Sabour et al. 2016, arXiv:1511.05122. **Differs**: signed gradient steps for L-BFGS; the nearest guide
    for one given to each image.
    """

    features: Callable[[Tensor], Tensor]
    guides: Images
    steps: int = 100
    rel_step_size: float = 0.1
    early_stop: bool = True

    def cost(self, classes: int) -> Cost:
        return Cost(forwards=3 + self.steps + len(self.guides), estimates=self.steps + 1)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        threat, x = norm_ball(threat, "`FeatureMatching`"), x.detach()
        best = Incumbent(x)
        batch = Batch.whole(x, y, generator, margin_loss)
        if not len(batch):
            return x.clone()
        goal = self._goals(classifier, batch, threat)
        x_adv, project = x, threat.projection(x)
        for step in range(self.steps + 1):
            with torch.no_grad():
                outputs = classifier(x_adv, generator=batch.streams)
            distance, grad = self._pull(classifier, x_adv, goal)
            best.offer(batch.index, x_adv, -distance)
            if self.early_stop and (won := fooled(outputs, batch.y, threat)).any():
                best.fooled(batch, won, x_adv)
                batch, x_adv, grad, goal = batch.keep(~won, x_adv, grad, goal)
                project = threat.projection(batch.x)
            if step == self.steps or not len(batch):
                break
            size = self.rel_step_size * threat.epsilon * (1 - 0.9 * step / self.steps)
            x_adv = project(threat.steepest_ascent(-grad).mul_(size).add_(x_adv))
        return threat.settle(best.x_adv, x)

    def _goals(self, classifier: Classifier, batch: Batch, threat: ThreatModel) -> Float[Tensor, "batch d"]:
        """The hidden layer of each example's guide."""
        with torch.no_grad():
            guides = self.guides.to(batch.x)
            streams = Streams.seeded(0, torch.arange(len(guides), device=batch.x.device), "guides")
            found = classifier(guides, generator=streams).logits.argmax(1)
            hidden, here = self.features(guides.clone()).flatten(1), self.features(batch.x.clone()).flatten(1)
            classifier.meter.forwards += len(batch.x) + len(guides)
            same = found[None] == batch.y[:, None]
            usable = same if threat.goal == "targeted" else ~same
            if not usable.any(1).all():
                missing = int(batch.y[~usable.any(1)][0])
                wanted = "of class" if threat.goal == "targeted" else "of another class than"
                raise UnusableInput(f"there is no guide {wanted} {missing}; give guides of every class")
            nearest = torch.cdist(here, hidden).masked_fill(~usable, torch.inf).argmin(1)
            return hidden[nearest]

    def _pull(self, classifier: Classifier, x_adv: Images, goal: Tensor) -> tuple[Tensor, Images]:
        """Squared distance to the guide, and its gradient."""
        x_adv = x_adv.detach().requires_grad_()
        with torch.enable_grad():
            distance = (self.features(x_adv.clone()).flatten(1) - goal).square().sum(1)
            classifier.meter.forwards += len(x_adv)
            return distance.detach(), classifier.gradient(distance, x_adv)
