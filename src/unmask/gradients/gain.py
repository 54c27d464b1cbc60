"""Logit scale: bring saturated or tiny logits to where the objective has a slope in float32."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..objectives import Objective, true_and_best_other
from ..randomness import Streams
from ..types import Outputs
from .base import Estimate, Exact, GradientEstimator, Images

_TARGET_MARGIN = 5.0  # ours: softmax(5 apart) is confident, yet all its float32 digits are there
_WIDEST = 100.0  # ours: the range of the scaled logits, so that exp() neither overflows nor reaches zero


def _automatic(logits: Tensor, y: Tensor) -> Tensor:
    """The scale `[batch]` that brings each margin to 5, or less where the logits would spread past 100."""
    true, other = true_and_best_other(logits, y)
    spread = logits.amax(1) - logits.amin(1)
    size = torch.maximum((true - other).abs(), spread * (_TARGET_MARGIN / _WIDEST))
    # The smallest normal number keeps the scale finite; equal logits have no margin to speak of.
    scale = _TARGET_MARGIN / size.clamp_min(_TARGET_MARGIN * 4 * torch.finfo(logits.dtype).tiny)
    return torch.where(torch.isfinite(size) & (size > 0), scale, torch.ones_like(size))


@dataclass(frozen=True)
class _Scaled(Objective):
    """An objective of `scale * logits`."""

    inner: Objective
    scale: float | Literal["auto"]

    def __call__(self, outputs: Outputs, y: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        logits = outputs.logits
        if self.scale != "auto":
            return self.inner(Outputs(logits * self.scale, outputs.detector_score), y)
        scale = _automatic(logits.detach(), y)
        value = self.inner(Outputs(logits * scale[:, None], outputs.detector_score), y)
        # A scale that changes from iterate to iterate makes bare values incomparable: every margin becomes 5 in size.
        # Counted from the value at equal logits and divided by the scale they are comparable again: for the
        # margin loss this is the margin loss itself, for the cross-entropy a smooth version of it.
        origin = self.inner(Outputs(torch.zeros_like(logits)), y)
        return (value - origin) / scale

    def take(self, index: Tensor) -> _Scaled:
        return _Scaled(self.inner.take(index), self.scale)


@dataclass(frozen=True)
class LogitScale(GradientEstimator):
    """The objective of scaled logits: its gradient neither underflows nor saturates. Outputs are unscaled.

    **Fields**
    - `inner`: estimates value and gradient of the scaled objective.
    - `scale`: a positive number, or `auto`: per example, so that the margin becomes 5 in size (logits no
      wider than 100).

    `value` is the objective of the scaled logits. With `auto` it is `(objective(s z) - objective(0)) / s`,
    which is comparable between iterates of different scale and of the order of the logits.

    **Cost**: that of `inner`.
    **Source**: Carlini & Wagner 2016, arXiv:1607.04311, section 3 (division of a distilled network's logits);
    the automatic scale is ours.
    """

    inner: GradientEstimator = Exact()
    scale: float | Literal["auto"] = "auto"

    def __post_init__(self) -> None:
        if self.scale != "auto" and not 0 < self.scale < float("inf"):
            raise UnusableInput(f"`LogitScale` has scale={self.scale}; give a positive number, or 'auto'")

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        scaled = _Scaled(objective, self.scale)
        return self.inner.estimate(classifier, scaled, x, y, generator=generator)
