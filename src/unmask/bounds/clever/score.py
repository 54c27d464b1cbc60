"""From the maxima of gradient norms to a CLEVER score."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .weibull import WeibullFit, fit_reverse_weibull


@dataclass(frozen=True)
class CleverScore:
    """One example's CLEVER score and what it rests on.

    **Fields**
    - `score`: estimated distance in the threat's norm; at most the sampling radius; 0 where the prediction is wrong
      (targeted: where it is the target already); NaN where a gradient was not finite.
    - `target`: the class with the smallest score.
    - `margin`: logit of the true class minus the target's, at the example.
    - `lipschitz`: estimated largest dual norm of the gradient of that difference in the ball.
    - `fit`: the reverse Weibull law of the maxima; None where `degenerate` says why there is none. Where it does not
      fit at all, `lipschitz` is the largest norm seen.
    - `spread`: smallest of the maxima by the largest, in [0, 1]; 0 where all are zero, NaN where one is not finite.
    - `zero_gradient_share`: share of the sampled gradients, over all targets, that are exactly zero everywhere.
    - `capped`: whether the score is the sampling radius itself, so that the distance may be larger.
    - `degenerate`: `zero` (every maximum is zero), `constant` (all maxima are equal: a linear function, or a pool too
      small), `misclassified`, `nonfinite`, or None.
    """

    score: float
    target: int
    margin: float
    lipschitz: float
    fit: WeibullFit | None
    spread: float
    zero_gradient_share: float
    capped: bool
    degenerate: Literal["zero", "constant", "misclassified", "nonfinite"] | None


def smallest_score(
    margins: list[float],
    targets: list[int],
    maxima: np.ndarray,
    zeros: float,
    *,
    radius: float,
    pooled: bool,
) -> CleverScore:
    """The smallest of one example's scores over its targets; a NaN is smaller than all.

    **Arguments**
    - `maxima`: `[targets, batches]`. `zeros`: share of the sampled gradients that are zero.
    - `radius`: the sampling radius. `pooled`: the maxima share a pool of points.
    """
    scores = [
        _score(margin, target, row, zeros, radius, pooled)
        for margin, target, row in zip(margins, targets, maxima, strict=True)
    ]
    return min(scores, key=lambda s: -1.0 if math.isnan(s.score) else s.score)


def _score(
    margin: float, target: int, maxima: np.ndarray, zeros: float, radius: float, pooled: bool
) -> CleverScore:
    if not (np.isfinite(maxima).all() and math.isfinite(margin)):
        return CleverScore(math.nan, target, margin, math.nan, None, math.nan, zeros, False, "nonfinite")
    largest = float(maxima.max())
    spread = float(maxima.min()) / largest if largest > 0 else 0.0
    if margin <= 0:
        return CleverScore(0.0, target, margin, largest, None, spread, zeros, False, "misclassified")
    if largest == 0:
        return CleverScore(radius, target, margin, 0.0, None, spread, zeros, True, "zero")
    fit, lipschitz = None, largest
    if spread < 1 - 1e-6:  # else equal up to float32 rounding of the gradient: there is no law to fit
        fit = fit_reverse_weibull(maxima)
        if pooled:
            fit = replace(fit, ks_pvalue=math.nan)
        lipschitz = fit.end_point
    score = margin / lipschitz
    kind = None if fit else "constant"
    capped = score >= radius
    return CleverScore(min(score, radius), target, margin, lipschitz, fit, spread, zeros, capped, kind)
