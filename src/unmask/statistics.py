"""Statistics that a verdict rests on."""

from __future__ import annotations

import math


def clopper_pearson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact two-sided binomial interval for a proportion (Clopper & Pearson 1934).

    Fractional successes (a mean over random draws) are rounded down for the lower end and up for the upper
    one, which can only widen the interval.

    >>> low, high = clopper_pearson(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4439, 0.9748)
    """
    from scipy.stats import beta

    assert n > 0, n
    assert 0 <= successes <= n + 1e-6, (successes, n)
    tail = (1 - level) / 2
    # A mean of float32 rates misses a whole number by rounding error; that is no fraction.
    fewer = math.floor(successes + 1e-6)
    more = min(n, math.ceil(successes - 1e-6))
    low = 0.0 if fewer == 0 else float(beta.ppf(tail, fewer, n - fewer + 1))
    high = 1.0 if more == n else float(beta.ppf(1 - tail, more + 1, n - more))
    return low, high
