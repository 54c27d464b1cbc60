"""What it adds to a detector's row that its threshold is an estimate: a quantile of a few hundred clean scores."""

from __future__ import annotations

import math
from collections.abc import Callable

from jaxtyping import Float
from scipy.stats import beta, binom
from torch import Tensor

from unmask.statistics import clopper_pearson

Scores = Float[Tensor, " n"]
LEVEL = 0.95


def rate_interval(n: int, above: int, level: float = LEVEL) -> tuple[float, float]:
    """The false-positive rates of a threshold that is the largest but `above` of `n` clean scores.

    The share of the distribution above that order statistic is Beta(above + 1, n - above), whatever the scores'
    distribution, as long as it has no atoms (David & Nagaraja 2003, Order Statistics, section 2.5).
    """
    tail = (1 - level) / 2
    return float(beta.ppf(tail, above + 1, n - above)), float(beta.ppf(1 - tail, above + 1, n - above))


def quantile_interval(scores: Scores, rate: float, level: float = LEVEL) -> tuple[float, float]:
    """Two order statistics between which the threshold lies that exactly a share `rate` of all clean images exceeds.

    How many of n scores lie below that threshold is binomial, without any assumption on their distribution (David &
    Nagaraja 2003, section 7.1). An end is infinite where there are too few of them to name one.
    """
    n, tail = len(scores), (1 - level) / 2
    ascending = scores.sort().values
    # The largest l with P(B < l) <= tail, and the smallest u with P(B >= u) <= tail, counted from 1.
    low, high = int(binom.ppf(tail, n, 1 - rate)), int(binom.ppf(1 - tail, n, 1 - rate)) + 1
    return (
        float(ascending[low - 1]) if low >= 1 else -math.inf,
        float(ascending[high - 1]) if high <= n else math.inf,
    )


def joint_interval(
    fooled: Callable[[float], float], scores: Scores, rate: float, n: int, level: float = LEVEL
) -> dict[str, object]:
    """An interval for the share of images on which both are fooled at the threshold that has exactly this rate.

    The share grows with the threshold. Either end is Clopper and Pearson's at one end of the threshold's interval,
    each at half of the error allowed (Bonferroni), for the images attacked are not those that set the threshold.

    **Arguments**: `fooled`: how many of the `n` images fall at a threshold, at least.
    """
    half = (1 + level) / 2
    low, high = quantile_interval(scores, rate, half)
    fewest, most = fooled(low), fooled(high)
    interval = clopper_pearson(fewest, n, half)[0], clopper_pearson(most, n, half)[1]
    return {"thresholds": [low, high], "at_thresholds": [fewest / n, most / n], "interval": list(interval)}
