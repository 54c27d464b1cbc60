"""Whether the loss does what its gradient says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from scipy.stats import binomtest
from torch import Tensor

from ..classifier import Classifier
from ..gradients import Exact, GradientEstimator
from ..objectives import Objective, margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import Outputs
from ..worst_case import WorstCase
from .base import Diagnostic, Images, Labels, Reading, Tried
from .first_look import first_look

# Chance at which a first look calls it agreement although it is none: at most 2 of 11 examples disagree. Ours.
CLEAR = 0.05


@dataclass(frozen=True, kw_only=True)
class GradientCheck(Diagnostic):
    """The change that the gradient predicts against the change that happens, along several directions.

    Per example and step size, the cosine between predicted and measured changes over the directions (one
    along the gradient, the others random): 1 for a linear function, 0 for a gradient that is zero or says
    nothing, negative for one that lies. Cosines do not punish a wrong scale, which no attack here feels. At
    the smallest sizes a staircase is flat and its zero gradient true, so the size of an attack's step
    decides: `decides_at`, or the next larger size at which anything changes. `value` is the median over the
    examples where something changes.

    Differences are symmetric, stay in the box, and are taken of float64 losses; a change below the rounding
    of float32 logits counts as none. Random networks are asked with the same draw each time, so that noise
    alone does not fail them. A few examples (`first_look`) are enough where nearly all of them agree.

    **Fields**
    - `sizes`: fractions of epsilon, increasing; none beyond the one that decides is measured.
    - `directions`: how many, including the gradient's own.
    - `least`: smallest median cosine that passes; ours. Honest networks score far above.

    **Cost**: one estimate and at most `2 * directions * len(sizes)` forwards of 11 examples, or of all beside them.
    """

    sizes: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    decides_at: float = 1e-1
    directions: int = 6
    least: float = 0.5
    objective: Objective = margin_loss
    gradient: GradientEstimator = Exact()

    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        streams, few = Streams.of(generator, len(x)), min(first_look(), len(x))
        reading, cosines = self._measured(classifier, x[:few], y[:few], threat, streams[:few])
        if few < len(x) and not self._clear(cosines):
            reading, _ = self._measured(classifier, x, y, threat, streams)
        return reading

    def _clear(self, cosines: Float[Tensor, " changing"]) -> bool:
        """Whether more examples agree than if the median of all were only just too low (sign test)."""
        agree = int((cosines >= self.least).sum())
        if not len(cosines):
            return False
        return float(binomtest(agree, len(cosines), alternative="greater").pvalue) < CLEAR

    def _measured(
        self, classifier: Classifier, x: Images, y: Labels, threat: ThreatModel, streams: Streams
    ) -> tuple[Reading, Float[Tensor, " changing"]]:
        """The reading on `x`, and the cosines whose median it is."""
        same_draw = streams.fork("draw")
        objective = self.objective.for_goal(threat.goal)
        estimate = self.gradient.estimate(classifier, objective, x, y, generator=same_draw.fork("call"))
        finite = torch.isfinite(estimate.grad).flatten(1).all(1)
        grad = torch.where(torch.isfinite(estimate.grad), estimate.grad, 0)
        ball = threat.around(x.shape[1:])
        directions = [ball.steepest_ascent(grad)]
        while len(directions) < self.directions:
            noise = streams.normal(*x.shape[1:], device=x.device).to(x.dtype)
            directions.append(ball.steepest_ascent(noise))

        def losses(points: Images) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
            with torch.no_grad():
                outputs = classifier(points, generator=same_draw.fork("call"))
            logits = outputs.logits.double()
            return objective(Outputs(logits, outputs.detector_score), y), logits.abs().amax(1)

        worst, everyone = WorstCase(x), torch.arange(len(x), device=x.device)
        statistics = {"non_finite_examples": 1.0 - float(finite.double().mean())}
        value, decided = None, torch.zeros(0, device=x.device)
        for size in self.sizes if threat.epsilon > 0 else ():
            measured, predicted = [], []
            for direction in directions:
                step = size * ball.epsilon * direction
                ahead, behind = (x + step).clamp(*ball.box), (x - step).clamp(*ball.box)
                (up, scale), (down, _) = losses(ahead), losses(behind)
                worst.offer(everyone, ahead, up)
                worst.offer(everyone, behind, down)
                change = up - down
                rounding = 16 * torch.finfo(torch.float32).eps * scale
                measured.append(torch.where(change.abs() > rounding, change, 0))
                moved = ahead.double() - behind.double()
                predicted.append((grad.double() * moved).flatten(1).sum(1))
            a, p = torch.stack(measured), torch.stack(predicted)
            changes = (a != 0).any(0)
            lengths = a.norm(dim=0) * p.norm(dim=0)
            cosine = torch.where(finite & (lengths > 0), (a * p).sum(0) / lengths.clamp_min(1e-300), 0)
            statistics[f"changing_examples_at_{size:g}"] = float(changes.double().mean())
            if changes.any():
                agreement = float(cosine[changes].median())
                statistics[f"cosine_at_{size:g}"] = agreement
                if size >= self.decides_at:
                    value, decided = agreement, cosine[changes]
                    break
        reading = Reading(
            name="gradient_check",
            passed=None if value is None else value >= self.least,
            value=value,
            expected=f"at least {self.least}: cosine between predicted and measured changes of the loss",
            explanation=_explain(value, self.least),
            statistics=statistics,
            tried=(Tried(by="", threat=threat, x_adv=threat.settle(worst.x_adv, x)),),
        )
        return reading, decided


def _explain(value: float | None, least: float) -> str:
    if value is None:
        return "The loss does not change within the ball, so there is nothing to compare the gradient with."
    if value >= least:
        return f"The loss moves as its gradient says (cosine {value:.2f})."
    return f"The loss moves, but not as its gradient says (cosine {value:.2f}): attacks are led astray."
