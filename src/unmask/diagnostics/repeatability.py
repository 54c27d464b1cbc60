"""Whether the same question gets the same answer twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..gradients import Exact, GradientEstimator
from ..objectives import Objective, margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading
from .first_look import first_look


@dataclass(frozen=True, kw_only=True)
class Repeatability(Diagnostic):
    """Predictions and gradients at the same points, on different random draws.

    `value` is the share of examples whose logits change. `statistics` say how much it matters:
    `prediction_changes` (share of examples), `gradient_cosine` (mean over examples and pairs of draws), and
    `noise_to_signal` (median over examples of the standard deviation of one gradient over the length of the
    mean gradient, the variance of the mean subtracted): averaging `r` draws leaves `noise_to_signal /
    sqrt(r)`.

    **Fields**
    - `draws`: at least 2.
    - `objective`, `gradient`: whose gradient is repeated.

    Of a network that is said to be deterministic the first few examples (`first_look`) are asked about, and all only
    where one of these differs.

    **Cost**: `draws` estimates, of a deterministic network of 11 examples.
    **Source**: the symptom is that of Athalye et al. 2018, arXiv:1802.00420, section 4 (stochastic
    gradients).
    """

    draws: int = 4
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
        streams, few = Streams.of(generator, len(x)), first_look()
        if classifier.deterministic and len(x) > few:
            reading = self._measured(classifier, x[:few], y[:few], threat, streams[:few])
            if reading.passed:
                return reading
        return self._measured(classifier, x, y, threat, streams)

    def _measured(
        self, classifier: Classifier, x: Images, y: Labels, threat: ThreatModel, streams: Streams
    ) -> Reading:
        objective = self.objective.for_goal(threat.goal)
        estimates = [
            self.gradient.estimate(classifier, objective, x, y, generator=streams.fork(f"draw {draw}"))
            for draw in range(self.draws)
        ]
        logits = torch.stack([e.outputs.logits for e in estimates]).double()
        spread = (logits - logits[0]).abs().amax((0, 2))
        # GPU kernels that add in no fixed order differ by a few units in the last place; that is not a
        # defence.
        changed = ~(spread <= 1e-5 * logits.abs().amax((0, 2)))
        predictions = logits.argmax(2)
        prediction_changes = (predictions != predictions[0]).any(0)

        grads = torch.stack([e.grad.double().flatten(1) for e in estimates])
        mean = grads.mean(0)
        variance = (grads - mean).square().sum((0, 2)) / (self.draws - 1)
        signal = (mean.square().sum(1) - variance / self.draws).clamp_min(0)
        noise_to_signal = (variance / signal.clamp_min(1e-300)).sqrt().nan_to_num(nan=torch.inf)
        unit = grads / grads.norm(dim=2, keepdim=True).clamp_min(1e-300)
        cosines = (unit.sum(0).square().sum(1) - unit.square().sum((0, 2))) / (self.draws * (self.draws - 1))
        share = float(changed.double().mean())
        return Reading(
            name="repeatability",
            passed=share == 0,
            value=share,
            expected="0: no example's logits change between draws",
            explanation=(
                "Equal inputs give equal outputs."
                if share == 0
                else f"The logits of {share:.0%} of the examples change when an input is given again, "
                "so the gradient must be averaged and success judged on fresh draws."
            ),
            statistics={
                "prediction_changes": float(prediction_changes.double().mean()),
                "gradient_cosine": float(cosines.mean()),
                "noise_to_signal": float(noise_to_signal.median()),
            },
        )
