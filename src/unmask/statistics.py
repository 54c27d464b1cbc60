"""Statistics that a verdict rests on."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

# Nodes of the integral in `_chance_below` and the range of its variable, over the sum's deviation. Ours: against
# Clopper-Pearson, which is a special case, ten digits are right.
_NODES, _SMALLEST, _LARGEST = 700, 1e-14, 1e9


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


def mean_interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Two-sided interval for the mean of a distribution on [0, 1] from independent values of it.

    The values are what each example's fresh draws say of it: the share of them on which it stayed right. Their mean is
    the accuracy, for the choice of examples and the draws together; how many draws there were shows in how the values
    scatter. The upper end is the `(1 + level) / 2` quantile of the values' mean under weights that are uniform over the
    simplex, with the value 1 as one more; the lower end likewise with the value 0.

    Of values that are all 0 or 1 it is exactly the interval of Clopper & Pearson, and it is narrower the less the
    values scatter. That it covers at its level for every distribution is conjectured and not proved; no counterexample
    is known, and `benchmarks/interval_coverage.py` shows coverage on networks of known accuracy.

    **Source**: Gaffke 2005 (Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
    variable); Learned-Miller & Thomas 2019, arXiv:1905.06208.

    >>> low, high = mean_interval([1.0] * 8 + [0.0] * 2)
    >>> round(low, 4), round(high, 4)
    (0.4439, 0.9748)
    >>> low, high = mean_interval([0.8] * 10)
    >>> round(low, 4), round(high, 4)
    (0.5532, 0.8617)
    """
    found = np.asarray(list(values), dtype=np.float64)
    assert len(found), "no values"
    assert found.min() >= -1e-6, found.min()
    assert found.max() <= 1 + 1e-6, found.max()
    # Rates come in float32; their rounding error is no scatter.
    found = np.clip(found.round(6), 0, 1)
    if np.isin(found, (0, 1)).all():
        return clopper_pearson(found.sum(), len(found), level)
    return 1 - _upper_end(1 - found, level), _upper_end(found, level)


def _upper_end(values: np.ndarray, level: float) -> float:
    from scipy.optimize import brentq

    distinct, counts = np.unique(np.append(values, 1.0), return_counts=True)
    aim = (1 + level) / 2
    # Beside its own mean the sum is about as often above as below; far from there the integrand is all ripples.
    low = float((counts * distinct).sum() / counts.sum())
    step = math.sqrt(float((counts * (distinct - low) ** 2).sum())) / float(counts.sum())
    high = low + 3 * step
    while high < 1 and _chance_below(distinct - high, counts) < aim:
        high += step
    end = brentq(lambda m: _chance_below(distinct - m, counts) - aim, low, min(1.0, high), xtol=1e-12)
    assert isinstance(end, float)
    return end


def _chance_below(values: np.ndarray, counts: np.ndarray) -> float:
    """Chance that the mean of `values`, each as often as `counts` says, is below 0 if weights are uniform on a simplex.

    Such weights are exponential variables over their sum, so that the sign is that of a sum of exponentials. Its
    distribution follows from the characteristic function (Gil-Pelaez 1951), integrated over the logarithm of its
    argument, where the trapezoidal rule converges geometrically.
    """
    deviation = math.sqrt(float((counts * values**2).sum()))
    if deviation == 0:
        return 1.0
    logs, step = np.linspace(math.log(_SMALLEST), math.log(_LARGEST), _NODES, retstep=True)
    products = np.exp(logs)[:, None] / deviation * values
    size = np.exp(-0.5 * (counts * np.log1p(products**2)).sum(1))
    phase = (counts * np.arctan(products)).sum(1)
    return 0.5 - float((size * np.sin(phase)).sum() * step) / math.pi
