"""HopSkipJump: walks along the decision boundary towards `x`, from labels alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..errors import Unsupported
from ..judge import fooled
from ..objectives import margin_loss
from ..randomness import Streams
from ..threat import L1, L2, NormBall, ThreatModel
from ..types import per_example
from .base import Attack, Cost, Images, Labels, Setting
from .batch import Batch, Incumbent

_TRIES = 50  # random images tried as a first adversarial point
_HALVINGS = 10  # of the way back to the boundary, and of a step that went too far
_AT_ONCE = 16  # samples of the gradient estimate in one forward


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """Estimates the boundary's normal from the labels of random points around it, steps, and returns to it.

    It sees the predicted class and nothing else. With `early_stop` an example leaves as soon as its point
    lies inside the ball; without, the distance is made as small as the queries allow.

    **Fields**
    - `queries`: forwards per example.
    - `initial_samples`: samples of the first normal; their number grows with the square root of the
      iteration.

    **Cost**: at most `queries` forwards per example, no backward.
    **Raises** `Unsupported` under Linf, where `RayS` is far better.
    **Source**: Chen, Jordan & Wainwright 2020, arXiv:1904.02144.
    **Differs**: under L1 the walk is the one for L2, and only the distance is L1. Where radii differ, it is walked in
    units of them.
    """

    queries: int = 5000
    initial_samples: int = 100
    early_stop: bool = True

    def describe(self) -> str:
        return f"HopSkipJump-{self.queries} (labels only)"

    def fit(self, setting: Setting) -> Attack | None:
        """None for a random network: a bisection needs one boundary."""
        return None if setting.random else self

    def cost(self, classes: int) -> Cost:
        return Cost(forwards=self.queries)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if not isinstance(threat, L2 | L1):
            raise Unsupported(f"`HopSkipJump` walks under L2 or L1, not {type(threat).__name__}; use `RayS`")
        x = x.detach()
        best = Incumbent(x)
        if len(x):
            with torch.no_grad():
                self._search(classifier, Batch.whole(x, y, generator, margin_loss), threat, best)
        return threat.settle(best.x_adv, x)

    def _search(self, classifier: Classifier, batch: Batch, threat: NormBall, best: Incumbent) -> None:
        tries = min(_TRIES, max(self.queries - _HALVINGS, 1))
        x_adv, found = self._start(classifier, batch, threat, tries)
        lost = (~found).nonzero()[:, 0]
        best.offer(batch.index[lost], batch.x[lost], torch.full((len(lost),), -1e30, device=batch.x.device))
        batch, x_adv = batch.keep(found, x_adv)
        used = tries
        for iteration in range(1, self.queries):
            if used + _HALVINGS > self.queries or not len(batch):
                break
            x_adv = self._to_boundary(classifier, batch, x_adv, threat)
            used += _HALVINGS
            distance = threat.distance(x_adv, batch.x)
            near = (distance <= threat.epsilon) & self.early_stop
            best.offer(batch.index, x_adv, torch.where(near, torch.inf, -distance))
            batch, x_adv = batch.keep(~near, x_adv)
            samples = round(self.initial_samples * math.sqrt(iteration))
            samples = min(samples, self.queries - used - 2 * _HALVINGS)
            if samples < 1 or not len(batch):
                break
            length = threat.in_units(x_adv - batch.x).flatten(1).norm(dim=1)
            probe = length / x_adv[0].numel() if iteration > 1 else torch.full_like(length, 0.1)
            normal = self._normal(classifier, batch, x_adv, probe, samples, threat)
            x_adv = self._advance(classifier, batch, x_adv, normal, length / math.sqrt(iteration), threat)
            used += samples + _HALVINGS

    def _adversarial(
        self, classifier: Classifier, points: Images, y: Labels, batch: Batch, threat: NormBall
    ) -> Bool[Tensor, " points"]:
        return fooled(classifier(points, generator=batch.streams), y, threat)

    def _start(
        self, classifier: Classifier, batch: Batch, threat: NormBall, tries: int
    ) -> tuple[Images, Bool[Tensor, " batch"]]:
        """The first of some uniformly random images that fools, per example."""
        low, high = threat.box
        x_adv, open_ = batch.x.clone(), torch.arange(len(batch), device=batch.x.device)
        part = batch
        for _ in range(tries):
            noise = low + (high - low) * part.streams.uniform(*batch.x.shape[1:], device=batch.x.device)
            noise = threat.held(noise.to(batch.x.dtype), part.x)
            won = self._adversarial(classifier, noise, part.y, part, threat)
            x_adv[open_[won]] = noise[won]
            part, open_ = part.keep(~won, open_)
            if not len(part):
                break
        found = torch.ones(len(batch), dtype=torch.bool, device=batch.x.device)
        found[open_] = False
        return x_adv, found

    def _to_boundary(self, classifier: Classifier, batch: Batch, x_adv: Images, threat: NormBall) -> Images:
        """Bisects the way from `x` to an adversarial point; the end returned is adversarial."""
        inner, outer = x_adv.new_zeros(len(batch)), x_adv.new_ones(len(batch))
        for _ in range(_HALVINGS):
            middle = (inner + outer) / 2
            points = torch.lerp(batch.x, x_adv, per_example(middle, x_adv))
            won = self._adversarial(classifier, points, batch.y, batch, threat)
            inner, outer = torch.where(won, inner, middle), torch.where(won, middle, outer)
        return torch.lerp(batch.x, x_adv, per_example(outer, x_adv))

    def _normal(
        self,
        classifier: Classifier,
        batch: Batch,
        x_adv: Images,
        probe: Float[Tensor, " batch"],
        samples: int,
        threat: NormBall,
    ) -> Images:
        """The paper's equation 16: the mean of random directions, weighted by the side on which they end."""
        total, plain, balance = torch.zeros_like(x_adv), torch.zeros_like(x_adv), torch.zeros_like(probe)
        done = 0
        while done < samples:
            count = min(_AT_ONCE, samples - done)
            noise = batch.streams.normal(count, *x_adv.shape[1:], device=x_adv.device).to(x_adv.dtype)
            noise /= noise.flatten(2).norm(dim=2).reshape(len(batch), count, *[1] * (x_adv.ndim - 1))
            steps = probe.reshape(-1, *[1] * x_adv.ndim) * noise
            steps = threat.from_units(steps.flatten(0, 1)).reshape(noise.shape)
            points = (x_adv[:, None] + steps).clamp(*threat.box)
            labels: Int[Tensor, " points"] = batch.y.repeat_interleave(count)
            side = self._adversarial(classifier, points.flatten(0, 1), labels, batch, threat)
            side = 2 * side.reshape(len(batch), count).to(x_adv.dtype) - 1
            total += torch.einsum("bs,bs...->b...", side, noise)
            plain += noise.sum(1)
            balance += side.sum(1)
            done += count
        mean = balance / samples
        one_sided = mean.abs() == 1
        weighted = torch.where(per_example(one_sided, total), total, total - per_example(mean, total) * plain)
        length = weighted.flatten(1).norm(dim=1).clamp_min(1e-30)
        return weighted / per_example(length, weighted)

    def _advance(
        self,
        classifier: Classifier,
        batch: Batch,
        x_adv: Images,
        normal: Images,
        step: Float[Tensor, " batch"],
        threat: NormBall,
    ) -> Images:
        """Steps along the normal, half as far again and again until the point is adversarial."""
        moved = x_adv.clone()
        open_, part = torch.arange(len(batch), device=x_adv.device), batch
        for _ in range(_HALVINGS):
            points = x_adv[open_] + threat.from_units(per_example(step[open_], x_adv) * normal[open_])
            points = points.clamp(*threat.box)
            won = self._adversarial(classifier, points, part.y, part, threat)
            moved[open_[won]] = points[won]
            step = step / 2
            part, open_ = part.keep(~won, open_)
            if not len(part):
                break
        return moved
