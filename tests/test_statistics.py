"""The exact interval against its definition: the ends are where the tails of the binomial are half of what is left."""

import math

import pytest
from scipy.stats import binom

from unmask.statistics import clopper_pearson


@pytest.mark.parametrize(
    ("successes", "n"), [(8, 10), (1, 10), (9, 10), (50, 100), (1, 1000), (7, 7), (0, 7)]
)
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_ends_are_where_the_tails_say_so(successes, n, level):
    low, high = clopper_pearson(successes, n, level)
    tail = (1 - level) / 2
    if successes == 0:
        assert low == 0.0
    else:  # so many or more would be as rare as half of what is left, were the lower end true
        assert math.isclose(float(binom.sf(successes - 1, n, low)), tail, rel_tol=1e-6)
    if successes == n:
        assert high == 1.0
    else:
        assert math.isclose(float(binom.cdf(successes, n, high)), tail, rel_tol=1e-6)


def test_95_percent_unless_said_otherwise():
    assert clopper_pearson(3, 9) == clopper_pearson(3, 9, 0.95)


def test_fractions_widen_and_rounding_errors_do_not():
    assert clopper_pearson(3.5, 9) == (clopper_pearson(3, 9)[0], clopper_pearson(4, 9)[1])
    assert clopper_pearson(2.9999996, 9) == clopper_pearson(3, 9) == clopper_pearson(3.0000004, 9)
    assert clopper_pearson(2.99999, 9) == (clopper_pearson(2, 9)[0], clopper_pearson(3, 9)[1])
    assert clopper_pearson(9.0000004, 9) == clopper_pearson(9, 9)
    assert clopper_pearson(8.5, 9)[1] == 1.0
    assert clopper_pearson(0.5, 9)[0] == 0.0


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (0, 0), (-1, 5), (5.1, 5)])
def test_counts_that_are_none_are_refused(successes, n):
    with pytest.raises(AssertionError, match=str(n)):
        clopper_pearson(successes, n)
