"""The reverse Weibull law of extreme values, fitted to maxima."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.stats import kstest

# Weight of the squared scale, in units of the sample's range, in the authors' released code.
_PENALTY = 0.01
# Below this p-value the authors' released code calls the sample ill-conditioned and takes its largest value.
_ILL_CONDITIONED = 1e-3
# Bounds of the logarithms of shape, end point beyond the largest value, and scale. A shape below 1 is excluded: there
# the likelihood is unbounded as the end point approaches the largest value, whatever the sample.
_BOUNDS = ((0.0, 7.0), (-14.0, 7.0), (-7.0, 7.0))


@dataclass(frozen=True)
class WeibullFit:
    """A reverse Weibull law and how well it fits.

    **Fields**
    - `shape`, `location`, `scale`: the law; `location` is its end point.
    - `end_point`: the estimated largest possible value: `location`, or the largest sample where the law is rejected
      at p below 0.1 %.
    - `ks_statistic`, `ks_pvalue`: Kolmogorov-Smirnov test of the sample against the fitted law. The law was fitted to
      the same sample, so the p-value errs towards accepting it.
    """

    shape: float
    location: float
    scale: float
    end_point: float
    ks_statistic: float
    ks_pvalue: float


def fit_reverse_weibull(maxima: np.ndarray) -> WeibullFit:
    """Penalised maximum likelihood fit of all three parameters to `maxima` `[n]`, which must not all be equal.

    The paper says maximum likelihood. Where the sample looks like Gumbel's law, that has no maximum: shape, scale and
    end point grow together for ever. The authors' released code therefore scales the sample to a range of 1 and
    subtracts 0.01 times the squared scale from the log-likelihood, and takes the largest sample where no law fits; so
    does this.

    **Source**: Weng et al. 2018, arXiv:1801.10578, section 4, and `clever.py` of their released code (`mle_reg`).
    **Differs**: shapes below 1 are excluded, and the optimum is searched from two starting shapes by its gradient; the
    released code takes the law of the best p-value from seven starts of a simplex search.
    """
    maxima = np.asarray(maxima, dtype=np.float64)
    top, width = maxima.max(), np.ptp(maxima)
    if not width > 0:
        raise ValueError("the maxima are all equal; there is no law to fit")
    below = (top - maxima) / width
    found = [
        minimize(_loss, np.log(start), (below,), jac=True, method="L-BFGS-B", bounds=_BOUNDS)
        for start in ((3.0, 0.2, 0.5), (10.0, 1.0, 1.5))
    ]
    shape, beyond, scale = np.exp(min(found, key=lambda f: f.fun).x)
    location, scale = top + beyond * width, scale * width
    test = kstest(maxima, lambda v: np.exp(-((np.maximum(location - v, 0) / scale) ** shape)))
    end_point = location if test.pvalue >= _ILL_CONDITIONED else top
    return WeibullFit(*(float(v) for v in (shape, location, scale, end_point, test.statistic, test.pvalue)))


def _loss(logs: np.ndarray, below: np.ndarray) -> tuple[float, np.ndarray]:
    """Penalised negative log-likelihood and its slope by the logarithms of shape, end point and scale."""
    shape, beyond, scale = np.exp(logs)
    away = beyond + below
    ratio = np.log(away / scale)
    power = np.exp(np.minimum(shape * ratio, 200.0))  # larger ones overflow, far from any optimum
    count = len(below)
    value = count * (np.log(scale) - logs[0]) - (shape - 1) * ratio.sum() + power.sum() + _PENALTY * scale**2
    by_shape = shape * ((power - 1) * ratio).sum() - count
    by_beyond = beyond * ((shape * power - (shape - 1)) / away).sum()
    by_scale = shape * (count - power.sum()) + 2 * _PENALTY * scale**2
    return float(value), np.array([by_shape, by_beyond, by_scale])
