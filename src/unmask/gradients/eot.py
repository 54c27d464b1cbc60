"""EOT: the gradient of the mean, over as many draws of the defence's randomness as the noise demands."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..classifier import Classifier
from ..classifier.averaging import addend, logits_of_mean
from ..errors import UnusableInput
from ..objectives import Objective
from ..randomness import Streams
from ..types import Outputs
from .base import Estimate, Exact, GradientEstimator, Images


@dataclass(frozen=True)
class EOT(GradientEstimator):
    """Expectation over transformation: value, gradient and outputs are means over independent draws.

    The number of draws is measured, not guessed. After n draws with mean gradient `m` and mean squared
    deviation `v`, the mean carries noise of power `v / n`, hence a signal of power `|m|^2 - v / n`. An example
    leaves as soon as signal over noise reaches `snr`; the cosine between mean and true gradient is then about
    `sqrt(snr / (1 + snr))`. More is seldom worth its price: an attack draws afresh at every step, so that the
    same draws spent on more and smaller steps average as well, and move meanwhile. What an example draws, and
    how often, does not depend on the others.

    **Fields**
    - `inner`: estimates one draw.
    - `draws`: a fixed number of draws, or None to let the noise decide.
    - `snr`: the ratio of powers at which an example has had enough; 4 is a cosine of 0.89. Ours.
    - `max_draws`: the cap where the noise never gives in. Ours.

    **Cost**: `draws` inner estimates per example; if None, between 2 and `max_draws`. Two equal draws end it,
    and a classifier that promises to be deterministic gets one: an inner estimator's own noise is its own
    affair.
    **Source**: Athalye et al. 2018, arXiv:1707.07397.
    **Differs**: the papers fix the number of draws (20 to 40 are usual).
    """

    inner: GradientEstimator = Exact()
    draws: int | None = None
    snr: float = 4.0
    max_draws: int = 32

    def __post_init__(self) -> None:
        for name, number in (("draws", self.draws), ("max_draws", self.max_draws)):
            if number is not None and number < 1:
                raise UnusableInput(f"`EOT` has {name}={number}; give at least 1")
        if not self.snr >= 0:
            raise UnusableInput(f"`EOT` has snr={self.snr}; give a number that is zero or larger")

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        # Later draws are made by copies of these streams, for the examples that are left. The caller's must
        # move on by themselves, or the attack's next step would see the same draws again.
        part = Streams.of(generator, len(x)).spawn("EOT")
        cap = self.draws or (1 if classifier.deterministic else self.max_draws)

        # The outputs are averaged as the deployed prediction is; one draw is its own mean.
        average = classifier.averaged if cap > 1 else "logits"
        # One call per draw, never one large batch: a network may draw once per call for the whole batch.
        first = self.inner.estimate(classifier, objective, x, y, generator=part)
        value, grad, logits = (
            first.value.clone(),
            first.grad.clone(),
            addend(first.outputs.logits, average).clone(),
        )
        score = first.outputs.detector_score
        score = None if score is None else score.clone()
        scatter = torch.zeros(len(x), dtype=torch.float64, device=x.device)  # sum of squared deviations

        left = torch.arange(len(x), device=x.device)
        for n in range(2, cap + 1):
            est = self.inner.estimate(classifier, objective.take(left), x[left], y[left], generator=part)
            change = est.grad - grad[left]
            mean = grad[left] + change / n
            grad[left] = mean
            value[left] += (est.value - value[left]) / n
            logits[left] += (addend(est.outputs.logits, average) - logits[left]) / n
            if score is not None and est.outputs.detector_score is not None:
                score[left] += (est.outputs.detector_score - score[left]) / n
            if self.draws is not None:
                continue
            # In float64: squares of small gradients underflow float32, and their noise would seem to be nil.
            scatter[left] += (change.double() ** 2).flatten(1).sum(1) * (n - 1) / n  # Welford 1962
            noise = scatter[left] / ((n - 1) * n)
            signal = (mean.double() ** 2).flatten(1).sum(1) - noise
            stay = ((signal < self.snr * noise) & torch.isfinite(noise)).nonzero()[:, 0]
            if not len(stay):
                break
            if len(stay) < len(left):
                left, part = left[stay], part[stay]
        return Estimate(value, grad, Outputs(logits_of_mean(logits, average), score))
