"""How much of the gradient is there at all."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..gradients import Exact, GradientEstimator
from ..objectives import Objective, cross_entropy, margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading
from .first_look import first_look

LARGEST_DECADE = 10
SMALLEST_DECADE = -46  # the smallest float32 above zero is 1.4e-45


@dataclass(frozen=True, kw_only=True)
class GradientShare(Diagnostic):
    """Zero, subnormal and non-finite elements of the gradient, for each objective.

    Fails when an objective's gradient is all zero on more than `zero_examples` of the examples, has more than
    `zero_elements` zeros over all, or has any non-finite element. Dead pixels and dead rectifiers leave
    honest networks many zero elements, hence the large bound. `value` is the largest share of all-zero
    examples.

    `statistics` are named `<Objective>.<what>`: `zero_elements`, `subnormal_elements`, `zero_examples`,
    `non_finite_elements` (shares), `norm_5`, `norm_50`, `norm_95` (quantiles over examples of the Euclidean
    norm). `curve` is the histogram of Figure 1 in the source for the first objective: (log10 of the element's
    size, lower end of a decade; share of all elements). Zeros are in none of the bins.

    Where the first few (`first_look`) pass and none of them has a gradient of zero, these are all that is looked at.

    **Cost**: one estimate per objective of 11 examples, or of all beside them.
    **Source**: Nayebi & Ganguli 2017, arXiv:1703.09202, after Brendel & Bethge 2017, arXiv:1704.01547.
    """

    objectives: tuple[Objective, ...] = (cross_entropy, margin_loss)
    gradient: GradientEstimator = Exact()
    zero_examples: float = 0.1
    zero_elements: float = 0.9

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
        reading = self._measured(classifier, x[:few], y[:few], threat, streams[:few])
        if len(x) <= few or (reading.passed and reading.value == 0):
            return reading
        return self._measured(classifier, x, y, threat, streams)

    def _measured(
        self, classifier: Classifier, x: Images, y: Labels, threat: ThreatModel, streams: Streams
    ) -> Reading:
        statistics: dict[str, float] = {}
        curve: tuple[tuple[float, float], ...] = ()
        worst, sound = 0.0, True
        for chosen in self.objectives:
            name = type(chosen).__name__
            objective = chosen.for_goal(threat.goal)
            estimate = self.gradient.estimate(classifier, objective, x, y, generator=streams.fork(name))
            size = estimate.grad.flatten(1).double().abs()
            finite = torch.isfinite(size)
            tiny = torch.finfo(estimate.grad.dtype).tiny
            zero_examples = _share((size == 0).all(1))
            zero_elements = _share(size == 0)
            non_finite = 1.0 - _share(finite)
            norms = torch.where(finite, size, 0).norm(dim=1)
            low, middle, high = norms.quantile(
                torch.tensor([0.05, 0.5, 0.95], dtype=norms.dtype, device=norms.device)
            )
            statistics |= {
                f"{name}.zero_elements": zero_elements,
                f"{name}.subnormal_elements": _share((size > 0) & (size < tiny)),
                f"{name}.zero_examples": zero_examples,
                f"{name}.non_finite_elements": non_finite,
                f"{name}.norm_5": float(low),
                f"{name}.norm_50": float(middle),
                f"{name}.norm_95": float(high),
            }
            worst = max(worst, zero_examples)
            sound &= (
                zero_examples <= self.zero_examples
                and zero_elements <= self.zero_elements
                and non_finite == 0
            )
            curve = curve or _histogram(size[finite])
        return Reading(
            name="gradient_share",
            passed=sound,
            value=worst,
            expected=f"at most {self.zero_examples}: share of examples whose gradient is zero everywhere",
            explanation=_explain(statistics, sound, worst),
            statistics=statistics,
            curve=curve,
        )


def _share(condition: torch.Tensor) -> float:
    return float(condition.double().mean())


def _histogram(size: torch.Tensor) -> tuple[tuple[float, float], ...]:
    decades = torch.log10(size[size > 0]).clamp(SMALLEST_DECADE, LARGEST_DECADE - 1e-9)
    counts = torch.histc(decades, LARGEST_DECADE - SMALLEST_DECADE, SMALLEST_DECADE, LARGEST_DECADE)
    shares = (counts / max(size.numel(), 1)).tolist()
    return tuple((float(SMALLEST_DECADE + place), share) for place, share in enumerate(shares))


def _explain(statistics: dict[str, float], sound: bool, worst: float) -> str:
    if sound:
        return "Nearly every example has a gradient to follow."
    non_finite = max(v for k, v in statistics.items() if k.endswith("non_finite_elements"))
    if non_finite > 0:
        return f"{non_finite:.1%} of the gradient is not finite."
    elements = max(v for k, v in statistics.items() if k.endswith("zero_elements"))
    return (
        f"The gradient is all zero on {worst:.0%} of the examples, and zero in {elements:.0%} of its "
        f"elements."
    )
