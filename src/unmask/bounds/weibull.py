"""The reverse Weibull law of extreme values, fitted to maxima."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kstest, weibull_max

# Past this shape the law is close to Gumbel's: the likelihood is flat and the end point, about shape / 1.28 standard
# deviations above the mean, is anyone's guess.
_LARGEST_SHAPE = 20.0


@dataclass(frozen=True)
class WeibullFit:
    """A reverse Weibull law and how well it fits.

    **Fields**
    - `shape`, `location`, `scale`: the law; `location` is the end point, the estimated largest possible value.
    - `ks_statistic`, `ks_pvalue`: Kolmogorov-Smirnov test of the sample against the fitted law. The law was fitted to
      the same sample, so the p-value errs towards accepting it.
    """

    shape: float
    location: float
    scale: float
    ks_statistic: float
    ks_pvalue: float


def fit_reverse_weibull(maxima: np.ndarray) -> WeibullFit:
    """Maximum likelihood fit of all three parameters to `maxima` `[n]`, which must not all be equal.

    The sample is standardised first, so that units do not matter, and the search starts at shape 3: from 1, where
    ART starts, it often ends at the largest sample with a shape below 1, a spurious peak where the
    likelihood is unbounded but the law does not fit.

    **Differs** from Weng et al. 2018: a shape above 20 is fixed at 20.
    """
    maxima = np.asarray(maxima, dtype=np.float64)
    top, spread = maxima.max(), maxima.std()
    if not spread > 0:
        raise ValueError("the maxima are all equal; there is no law to fit")
    sample = (maxima - top) / spread
    with np.errstate(all="ignore"):  # the search may step outside the support, where the likelihood is zero
        law = weibull_max.fit(sample, 3.0)
        if not law[0] <= _LARGEST_SHAPE:
            law = weibull_max.fit(sample, fc=_LARGEST_SHAPE)
        test = kstest(sample, weibull_max(*law).cdf)
    shape, location, scale = (float(v) for v in law)
    return WeibullFit(
        shape,
        float(top + location * spread),
        float(scale * spread),
        float(test.statistic),
        float(test.pvalue),
    )
