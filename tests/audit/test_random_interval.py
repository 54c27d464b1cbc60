"""The interval of a random network's accuracy holds for the choice of images and for the draws together."""

import numpy as np
import pytest
import torch
from torch import nn

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.statistics import clopper_pearson, mean_interval
from unmask.threat import Linf

AUDITS, IMAGES = 200, 40
# Of 200 audits at exactly 95 % one set in a thousand covers less often than this (binomial).
LEAST = 0.895


@pytest.mark.parametrize("draws", [1, 4, 32])
@pytest.mark.parametrize(("a", "b"), [(0.2, 0.2), (8.0, 2.0), (0.05, 4.0), (2e5, 8e5)])
def test_it_covers_the_true_accuracy_and_is_no_wider_than_it_must_be(a, b, draws):
    """Images with failure rates from a Beta distribution, each judged on a few draws; 200 audits of 40 images."""
    rng = np.random.default_rng(0)
    truth = b / (a + b)  # accuracy of a random image on a random draw
    rates = rng.beta(a, b, (AUDITS, IMAGES))
    right = 1 - rng.binomial(draws, rates) / draws
    found = np.array([mean_interval(values) for values in right])
    assert ((found[:, 0] <= truth) & (truth <= found[:, 1])).mean() >= LEAST
    rounded = np.array([clopper_pearson(values.sum(), IMAGES) for values in right])
    assert (found[:, 0] >= rounded[:, 0] - 1e-9).all()
    assert (found[:, 1] <= rounded[:, 1] + 1e-9).all()
    wide = np.diff(found).mean() / np.diff(rounded).mean()
    if (
        draws == 32
    ):  # the draws tell most where all images fail alike, and least where each fails always or never
        assert wide < {0.2: 0.9, 8.0: 0.5, 0.05: 0.8, 2e5: 0.4}[a]


@pytest.mark.parametrize(("successes", "n"), [(1, 10), (3, 10), (5, 6), (231, 256), (4999, 10_000)])
def test_the_integral_is_clopper_pearson_where_nothing_is_between(successes, n):
    from unmask.statistics import _upper_end

    values = np.repeat([1.0, 0.0], [successes, n - successes])
    ends = 1 - _upper_end(1 - values, 0.95), _upper_end(values, 0.95)
    assert ends == pytest.approx(clopper_pearson(successes, n), abs=1e-9)
    assert mean_interval(values) == clopper_pearson(successes, n)


def test_against_weights_drawn_at_random():
    """The definition itself: the quantile of the mean under uniform weights, with one value more."""
    rng = np.random.default_rng(1)
    values = rng.binomial(8, 0.7, 25) / 8
    low, high = mean_interval(values)
    weights = rng.dirichlet(np.ones(26), 200_000)
    assert np.quantile(weights @ np.append(values, 1.0), 0.975) == pytest.approx(high, abs=5e-4)
    assert np.quantile(weights @ np.append(values, 0.0), 0.025) == pytest.approx(low, abs=5e-4)


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.25], [1.0] * 30 + [0.5], [1 / 3] * 7])
def test_short_and_uniform_samples(values):
    low, high = mean_interval(values)
    assert 0 <= low <= np.mean(values) <= high <= 1
    assert mean_interval(1 - np.array(values)) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_float32_rates_are_whole_numbers_of_draws():
    thirds = (torch.tensor([1.0, 2.0, 3.0, 3.0]) / 3).tolist()
    assert mean_interval(thirds) == pytest.approx(mean_interval([1 / 3, 2 / 3, 1, 1]), abs=1e-5)
    nearly = (torch.tensor([3.0, 3.0, 0.0]) / 3 + 1e-8).tolist()
    assert mean_interval(nearly) == clopper_pearson(2, 3)


class Wavering(nn.Module):
    """Right on `share` of its draws, on every image alike and whatever is done to it."""

    def __init__(self, share):
        super().__init__()
        self.share = share
        data = load("digits")
        self.register_buffer("known", data.x.flatten(1))
        self.register_buffer("label", data.y)

    def forward(self, x):
        own = self.label[torch.cdist(x.flatten(1), self.known).argmin(1)]
        said = torch.where(torch.rand(len(x), device=x.device) < self.share, own, (own + 1) % 10)
        return nn.functional.one_hot(said, 10).float()


@pytest.mark.slow
def test_an_audit_of_known_accuracy_says_so_closely():
    data = load("digits", examples=50)
    report = audit(Wavering(0.8).eval(), data, claim_about(Linf(epsilon=1e-6), budget="quick"))
    low, high = report.robust_accuracy_interval
    assert low <= 0.8 <= high
    assert high - low < 0.12  # Clopper-Pearson of 50 images: 0.23
