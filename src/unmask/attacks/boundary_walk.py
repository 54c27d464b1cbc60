"""From an image of another class along the decision boundary into the ball: where the gradient at `x` says nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..classifier import Classifier
from ..judge import fooled
from ..objectives import Objective, Targeted, margin_loss
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, norm_ball
from ..types import per_example
from .base import Attack, Cost, GradientAttack, Images, Labels, Others, Setting
from .batch import Batch, Incumbent, restarts

_HALVINGS = 6  # of the way from the start back to the boundary; ours
_CLIMB, _STRIDE = (
    10,
    0.125,
)  # steps without another image to start from, and their size as a share of the box; ours
_REACHED = 0.6  # of the steps outside the ball, after which a walk that never slips would be inside; ours


@dataclass(frozen=True, kw_only=True)
class BoundaryWalk(GradientAttack):
    """Starts at an image of another class and follows the boundary inwards, by a ball that shrinks while it fools.

    At `x`, and in a small ball around it, the gradient of a masked network may be zero, or point nowhere: a threshold
    on pixels that Linf training has learned hides what a larger change of a few pixels does under L2. On the boundary
    far away it is alive, and stays so on the way. The last steps climb inside the ball of the threat model.

    Returns, per example, the first iterate inside the ball that fools, else the one inside with the largest objective.

    **Fields**
    - `steps`: updates from each start, at least 1.
    - `starts`: how many, each of another class: the images nearest to `x` first.
    - `first`: nearest images that are left out, for instance because an earlier walk has been there.
    - `others`: the images to start from. Without any of the right class, ten long steps of signs towards a class are
      the start, the likeliest classes first.
    - `gamma`: by which the ball shrinks after a step that fools, and grows after one that does not; more where the
      start is so far that it would not arrive otherwise. It falls to zero by a cosine.
    - `rel_step_size`: length of the first step, as a fraction of the ball's radius.
    - `inside`: share of the steps that are kept for the ball of the threat model itself.

    **Cost**: from each start 6 forwards and `steps + 1` estimates per example; 11 estimates and a forward more where
    `others` has nothing to start from.
    **Source**: the ball that follows the boundary is Rony et al. 2019 (arXiv:1811.09600) and Pintor et al. 2021
    (arXiv:2102.12827); the start at another image, Brendel et al. 2019 (arXiv:1907.01003).
    **Differs**: the radius ends at the threat model's, which is known; the start. `benchmarks/cascade_cost.py`
    compares.
    """

    steps: int = 30
    starts: int = 3
    first: int = 0
    others: Others | None = field(default=None, compare=False, repr=False)
    gamma: float = 0.3
    rel_step_size: float = 0.3
    inside: float = 0.33
    objective: Objective = margin_loss

    def describe(self) -> str:
        more = " more" if self.first else ""
        return f"boundary walk of {self.steps} steps from {self.starts}{more} image{'s' * (self.starts > 1)}"

    def fit(self, setting: Setting) -> Attack | None:
        """As every gradient attack; from the setting's images."""
        return GradientAttack.fit(replace(self, others=setting.others), setting)

    def cost(self, classes: int) -> Cost:
        away = self.others is None  # where no image is of another class: a climb to the start
        return Cost(forwards=self.starts * (6 + away), estimates=self.starts * (self.steps + 1 + 10 * away))

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        threat, x = norm_ball(threat, "`BoundaryWalk`"), x.detach()
        whole = Batch.whole(x, y, generator, self.objective.for_goal(threat.goal))
        best = Incumbent(x)
        gaps = self._gaps(x, y, threat)
        for _ in range(self.first):
            gaps = self._without(gaps, threat)
        for number, batch in restarts(self.starts, whole, best, "start"):
            start, chosen = self._image(batch, gaps[batch.index], threat)
            if not chosen.all():
                lost = (~chosen).nonzero()[:, 0]
                start[lost] = self._climbed(classifier, batch.take(lost), threat, self.first + number)
            start = threat.held(start, batch.x)
            gaps[batch.index] = self._without(gaps[batch.index], threat)
            self._walk(classifier, batch, self._back(classifier, batch, start, threat), threat, best)
        return threat.settle(best.x_adv, x)

    def _gaps(self, x: Images, y: Labels, threat: ThreatModel) -> Float[Tensor, "batch others"]:
        """Euclidean distances to the images that meet the goal, infinity to all others."""
        if self.others is None:
            return x.new_zeros(len(x), 0)
        meets = (self.others.classes[None] == y[:, None]) == (threat.goal == "targeted")
        gaps = torch.cdist(x.flatten(1).float(), self.others.x.flatten(1).float())
        return gaps.masked_fill(~meets, torch.inf)

    def _image(
        self, batch: Batch, gaps: Tensor, threat: ThreatModel
    ) -> tuple[Images, Bool[Tensor, " batch"]]:
        """The nearest image of each example that is still to be had, and whether there was one."""
        if self.others is None or not len(self.others.x):
            return batch.x.clone(), torch.zeros(len(batch), dtype=torch.bool, device=batch.x.device)
        gap, nearest = gaps.min(1)
        return self.others.x[nearest].to(batch.x.dtype), gap.isfinite()

    def _without(self, gaps: Tensor, threat: ThreatModel) -> Tensor:
        """Takes the nearest image away, and with it its class, unless that is the goal's."""
        if self.others is None or not len(self.others.x):
            return gaps
        nearest = gaps.argmin(1)
        if threat.goal == "targeted":
            return gaps.scatter(1, nearest[:, None], torch.inf)
        return gaps.masked_fill(self.others.classes[None] == self.others.classes[nearest][:, None], torch.inf)

    def _climbed(self, classifier: Classifier, batch: Batch, threat: NormBall, number: int) -> Images:
        """A point anywhere in the box that the likeliest wrong class but `number` wins, if signs lead to one."""
        low, high = threat.box
        objective = batch.objective
        if threat.goal == "untargeted":
            with torch.no_grad():
                logits = classifier(batch.x, generator=batch.streams).logits
            ranked = logits.scatter(1, batch.y[:, None], -torch.inf).argsort(1, descending=True)
            objective = Targeted(ranked[:, number % (logits.shape[1] - 1)])
        x_adv = batch.x.clone()
        for _ in range(_CLIMB):
            est = self.gradient.estimate(classifier, objective, x_adv, batch.y, generator=batch.streams)
            stride = (high - low) * _STRIDE * ~fooled(est.outputs, batch.y, threat)
            x_adv = (x_adv + per_example(stride, x_adv).to(x_adv.dtype) * est.grad.sign()).clamp_(low, high)
            x_adv = threat.held(x_adv, batch.x)
        return x_adv

    def _back(self, classifier: Classifier, batch: Batch, start: Images, threat: ThreatModel) -> Images:
        """Bisection from the start towards `x`: the nearest point seen that still fools."""
        near, far = batch.x.new_zeros(len(batch)), batch.x.new_ones(len(batch))
        with torch.no_grad():
            for _ in range(_HALVINGS):
                middle = (near + far) / 2
                point = torch.lerp(batch.x, start, per_example(middle, start))
                won = fooled(classifier(point, generator=batch.streams), batch.y, threat)
                near, far = torch.where(won, near, middle), torch.where(won, middle, far)
        return torch.lerp(batch.x, start, per_example(far, start))

    def _walk(
        self, classifier: Classifier, batch: Batch, x_adv: Images, threat: NormBall, best: Incumbent
    ) -> None:
        """One walk; what it finds goes to `best`."""
        outside = round(self.steps * (1 - self.inside))
        radius = threat.distance(x_adv, batch.x).clamp_min(threat.epsilon)
        nearest = radius  # at which the boundary was crossed
        needed = 1 - (threat.epsilon / radius.clamp_min(1e-38)) ** (1 / max(_REACHED * outside, 1))
        gamma = needed.clamp_min(self.gamma)
        for step in range(self.steps + 1):
            est = self.gradient.estimate(classifier, batch.objective, x_adv, batch.y, generator=batch.streams)
            grad, length = est.grad, threat.distance(x_adv, batch.x)
            within = length <= threat.epsilon * (1 + 1e-6)
            won = fooled(est.outputs, batch.y, threat)
            best.offer(batch.index, x_adv, est.value.double().masked_fill(~within, -torch.inf))
            if self.early_stop and (won & within).any():
                inside = won & within
                best.fooled(batch, inside, x_adv)
                batch, x_adv, grad, length, won, radius, nearest, gamma = batch.keep(
                    ~inside, x_adv, grad, length, won, radius, nearest, gamma
                )
                if not len(batch):
                    return
            if step == self.steps:
                return
            if step < outside:
                slow = (1 + math.cos(math.pi * step / outside)) / 2
                nearest = torch.where(won, torch.minimum(nearest, length), nearest)
                shrunk = torch.minimum(radius, length) * (1 - gamma * slow)
                grown = torch.minimum(radius * (1 + gamma * slow), nearest)
                radius = torch.where(won, shrunk, grown).clamp_min(threat.epsilon)
                size = self.rel_step_size * (0.1 + 0.9 * slow) * radius
            else:
                radius = torch.full_like(radius, threat.epsilon)
                size = 2 * self.rel_step_size * (1 - (step - outside) / (self.steps - outside)) * radius
            x_adv = threat.within(threat.ascend(x_adv, grad, size), batch.x, radius)
