"""Fast adaptive boundary attack: towards the nearest point of the decision boundary, by linearisations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..classifier import Classifier
from ..judge import fooled
from ..objectives import Objective, Targeted, Towards, margin_loss
from ..randomness import Streams
from ..threat import NormBall, ThreatModel, norm_ball
from ..types import per_example
from .base import Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent, restarts
from .hyperplane import to_hyperplane
from .target_classes import likeliest


@dataclass(frozen=True, kw_only=True)
class FAB(GradientAttack):
    """Minimal-norm attack: steps onto the nearest linearised boundary while pulled back towards `x`.

    Returns the nearest point that fools, drawn back into the ball of the threat model. With `early_stop` an
    example leaves as soon as a point inside the ball fools; without, the distance is made as small as the
    steps allow. `objective` is not used: the boundary between two classes is where their logits are equal.

    **Fields**
    - `steps`: linearisations of a restart.
    - `restarts`: the first starts at `x`, the others at random points within half the distance found so far.
    - `targets`: how many classes are linearised, the likeliest wrong ones at `x` first; None for all.
    - `one_by_one`: attack each target class on its own (FAB-T), instead of the nearest of them at every step.
    - `pull`: largest weight of the projection of `x` itself (the paper's alpha_max).
    - `overshoot`: length of a step relative to the distance to the linearised boundary (eta).
    - `backstep`: where the search goes on after a success, as a share of the way from `x` (beta).

    **Cost**: one forward, then per restart `targets` estimates and one forward a step, and 5 forwards to end
    with; with `one_by_one`, `targets` times one estimate and one forward a step and 5 forwards.
    **Source**: Croce & Hein 2020, arXiv:1907.02044; the targeted form, arXiv:2003.01690.
    **Differs**: the final search is a secant search on the margin loss.
    """

    steps: int = 100
    restarts: int = 1
    targets: int | None = None
    one_by_one: bool = False
    pull: float = 0.1
    overshoot: float = 1.05
    backstep: float = 0.9

    def describe(self) -> str:
        aims = "all classes" if self.targets is None else f"{self.targets} classes"
        return f"FAB{'-T' * self.one_by_one}-{self.steps}, {aims}"

    def cost(self, classes: int) -> Cost:
        aims = min(self.targets or classes - 1, classes - 1)
        alone = aims if self.one_by_one else 1  # approaches, each with a forward a step and 5 to end with
        return Cost(
            forwards=1 + self.restarts * alone * (self.steps + 5), estimates=self.restarts * aims * self.steps
        )

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        x = x.detach()
        threat = norm_ball(threat, "`FAB`")
        whole = Batch.whole(x, y, generator, margin_loss.for_goal(threat.goal))
        best = Incumbent(x)
        with torch.no_grad():
            outputs = classifier(x, generator=whole.streams)
        best.value[fooled(outputs, y, threat)] = torch.inf
        aims = self._aims(outputs.logits, y, threat)
        groups = [[aim] for aim in aims] if self.one_by_one else [aims]
        for number, batch in restarts(self.restarts * len(groups), whole, best, "approach"):
            restart, group = divmod(number, len(groups))
            part = [aim.take(batch.index) for aim in groups[group]]
            self._approach(classifier, batch, part, threat, best, restart)
        return threat.settle(best.x_adv, x)

    def _aims(self, logits: Tensor, y: Labels, threat: NormBall) -> list[Objective]:
        """What is linearised: the logit of each target class minus the label's."""
        if threat.goal == "targeted":
            return [Towards(margin_loss)]
        ranked = likeliest(logits, y)
        count = logits.shape[1] - 1 if self.targets is None else min(self.targets, logits.shape[1] - 1)
        return [Targeted(ranked[:, rank]) for rank in range(count)]

    def _approach(
        self,
        classifier: Classifier,
        batch: Batch,
        aims: list[Objective],
        threat: NormBall,
        best: Incumbent,
        restart: int,
    ) -> None:
        distance = -best.value[batch.index]  # infinity while nothing fools
        x_best = best.x_adv[batch.index]
        x_adv = batch.x
        if restart:
            share = distance.clamp_max(threat.epsilon) / (2 * max(threat.epsilon, 1e-38))
            start = threat.random_start(batch.x, generator=batch.streams)
            x_adv = batch.x + per_example(share, x_adv).to(x_adv.dtype) * (start - batch.x)
        for _ in range(self.steps):
            normal, value = self._nearest_boundary(classifier, batch, aims, x_adv, threat)
            x_adv = self._step(threat, batch.x, x_adv, normal, value)
            with torch.no_grad():
                outputs = classifier(x_adv, generator=batch.streams)
            adversarial = fooled(outputs, batch.y, threat)
            length = threat.distance(x_adv, batch.x)
            closer = adversarial & (length < distance)
            x_best = torch.where(per_example(closer, x_adv), x_adv, x_best)
            distance = torch.where(closer, length, distance)
            if self.early_stop and (won := distance <= threat.epsilon).any():
                best.fooled(batch, won, x_best)
                batch, x_adv, x_best, distance, adversarial, *aims = batch.keep(
                    ~won, x_adv, x_best, distance, adversarial, *aims
                )
                if not len(batch):
                    return
            back = batch.x + self.backstep * (x_adv - batch.x)
            x_adv = torch.where(per_example(adversarial, x_adv), back, x_adv)
        if distance.isfinite().any():
            x_best, distance = self._draw_back(classifier, batch, threat, x_best, distance)
        inside = self.early_stop & (distance <= threat.epsilon)
        best.offer(batch.index, x_best, torch.where(inside, torch.inf, -distance))

    def _nearest_boundary(
        self, classifier: Classifier, batch: Batch, aims: list[Objective], x_adv: Images, threat: NormBall
    ) -> tuple[Images, Float[Tensor, " batch"]]:
        """Gradient and value of the aim whose linearised boundary is nearest to `x_adv`."""
        normal, value, nearest = x_adv, None, None
        for aim in aims:
            est = self.gradient.estimate(classifier, aim, x_adv, batch.y, generator=batch.streams)
            size = threat.dual_length(est.grad)
            reach = torch.where(size > 0, est.value.abs() / size.clamp_min(1e-38), torch.inf)
            if value is None or nearest is None:
                normal, value, nearest = est.grad, est.value, reach
                continue
            closer = reach < nearest
            normal = torch.where(per_example(closer, normal), est.grad, normal)
            value, nearest = torch.where(closer, est.value, value), torch.where(closer, reach, nearest)
        assert value is not None
        return normal.nan_to_num(0.0, 0.0, 0.0), value.nan_to_num(0.0).to(x_adv.dtype)

    def _step(
        self, threat: NormBall, x: Images, x_adv: Images, normal: Images, value: Float[Tensor, " batch"]
    ) -> Images:
        """The paper's equation 9: the mean of the steps from `x_adv` and `x` to the linearised boundary."""
        value_at_x = value + (normal * (x - x_adv)).flatten(1).sum(1)
        step = to_hyperplane(threat, x_adv, normal, -value)
        step_from_x = to_hyperplane(threat, x, normal, -value_at_x)
        length, length_from_x = threat.length(step), threat.length(step_from_x)
        alpha = (length / (length + length_from_x).clamp_min(1e-38)).clamp_max(self.pull)
        moved = torch.lerp(
            x_adv + self.overshoot * step, x + self.overshoot * step_from_x, per_example(alpha, x)
        )
        return moved.clamp_(*threat.box)

    def _draw_back(
        self, classifier: Classifier, batch: Batch, threat: NormBall, x_best: Images, distance: Tensor
    ) -> tuple[Images, Tensor]:
        """Three secant steps on the margin loss, from `x_best` towards `x`."""
        found = torch.isfinite(distance).nonzero()[:, 0]
        part = batch.take(found)
        outer, inner = x_best[found], part.x
        with torch.no_grad():
            outer_value = part.objective(classifier(outer, generator=part.streams), part.y)
            inner_value = part.objective(classifier(inner, generator=part.streams), part.y)
            for _ in range(3):
                # Nineteen twentieths of the way to the root of the secant, to stay on the adversarial side.
                share = 0.95 * outer_value / (outer_value - inner_value).clamp_min(1e-38)
                point = torch.lerp(outer, inner, per_example(share.clamp(0, 1), outer).to(outer.dtype))
                outputs = classifier(point, generator=part.streams)
                value, keep = part.objective(outputs, part.y), fooled(outputs, part.y, threat)
                wide = per_example(keep, outer)
                outer, inner = torch.where(wide, point, outer), torch.where(wide, inner, point)
                outer_value = torch.where(keep, value, outer_value)
                inner_value = torch.where(keep, inner_value, value)
        x_best, distance = x_best.clone(), distance.clone()
        x_best[found], distance[found] = outer, threat.distance(outer, part.x)
        return x_best, distance
