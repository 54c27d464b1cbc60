"""Every detector beside a closed form or somebody else's implementation."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from sklearn.covariance import EmpiricalCovariance
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KernelDensity as SklearnDensity
from torch import nn

from unmask.defenses.detectors import (
    AnyOf,
    BayesianUncertainty,
    BinaryDetector,
    Detector,
    Divergence,
    FeatureSqueezing,
    KernelDensity,
    LocalDimension,
    Mahalanobis,
    ReconstructionError,
)
from unmask.defenses.detectors.combination import Combination
from unmask.defenses.detectors.kernel_density import likeliest_bandwidth
from unmask.defenses.detectors.local_dimension import dimension
from unmask.errors import Unsupported, UnusableInput


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# kernel density


def test_kernel_density_is_sklearns_in_the_last_hidden_layer(small):
    detector = KernelDensity(small.network, small.x, small.y, bandwidth=0.7)
    ours = detector(small.test_x)
    hidden, points = small.network[:-1](small.test_x), small.network[:-1](small.x)
    predicted = small.network(small.test_x).argmax(1)
    for c in range(10):
        theirs = SklearnDensity(bandwidth=0.7).fit(points[small.y == c].numpy())
        mine = predicted == c
        expected = -theirs.score_samples(hidden[mine].numpy())
        np.testing.assert_allclose(ours[mine].numpy(), expected, rtol=1e-4, atol=1e-3)


def test_the_bandwidth_is_the_likeliest_of_its_grid():
    points = torch.randn(60, 3, generator=rng()).double()
    classes = torch.zeros(60, dtype=torch.int64)
    found = likeliest_bandwidth(points, classes)

    def left_out(width):
        rows = points.numpy()
        fits = [SklearnDensity(bandwidth=width).fit(np.delete(rows, n, 0)) for n in range(len(rows))]
        return sum(fit.score_samples(rows[n : n + 1])[0] for n, fit in enumerate(fits))

    assert left_out(found) >= max(left_out(found * 2**0.5), left_out(found / 2**0.5))


def test_kernel_density_needs_every_class(small):
    with pytest.raises(UnusableInput, match="class 3 has 0 training images"):
        KernelDensity(small.network, small.x[small.y != 3], small.y[small.y != 3])


# Mahalanobis distance


def test_mahalanobis_is_sklearns(small):
    detector = Mahalanobis(small.network, small.x, small.y, ridge=0.0, layers=["5"])
    points, hidden = small.network[:-1](small.x).numpy(), small.network[:-1](small.test_x).numpy()
    y = small.y.numpy()
    means = np.stack([points[y == c].mean(0) for c in range(10)])
    tied = EmpiricalCovariance(assume_centered=True).fit((points - means[y]).astype(np.float64))
    expected = np.stack([tied.mahalanobis(hidden - means[c]) for c in range(10)]).min(0)
    np.testing.assert_allclose(detector.each(small.test_x)[:, 0].numpy(), expected, rtol=2e-3)


def test_mahalanobis_averages_convolutions_over_space():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)
        )
    x, y = torch.rand(40, 1, 8, 8, generator=rng()), torch.arange(40) % 2
    assert [p.shape for p in Mahalanobis(network, x, y).means] == [(2, 3), (2, 4)]


def test_the_weights_are_those_of_a_logistic_regression():
    clean = torch.randn(80, 2, generator=rng(1)) * torch.tensor([1.0, 50.0])
    adversarial = torch.randn(60, 2, generator=rng(2)) * torch.tensor([1.0, 50.0]) + torch.tensor(
        [1.0, -30.0]
    )
    found = Combination(clean, adversarial)
    scaled = ((torch.cat([clean, adversarial]) - clean.mean(0)) / clean.std(0)).numpy()
    theirs = LogisticRegression(max_iter=1000).fit(scaled, [0] * 80 + [1] * 60)
    expected = theirs.decision_function(scaled) - theirs.intercept_
    np.testing.assert_allclose(found(torch.cat([clean, adversarial])).numpy(), expected, rtol=1e-4, atol=1e-4)
    assert found.weights[0] > 0 > found.weights[1]


def test_without_adversarial_images_all_layers_count_alike():
    clean = torch.randn(50, 3, generator=rng()) * torch.tensor([1.0, 10.0, 100.0])
    scores = Combination(clean)(clean)
    expected = ((clean - clean.mean(0)) / clean.std(0)).mean(1)
    torch.testing.assert_close(scores, expected)


# local intrinsic dimensionality


@pytest.mark.parametrize("d", [1, 3, 8])
def test_local_dimension_of_distances_that_grow_as_in_d_dimensions(d):
    k = 20
    reference = (torch.arange(1, k + 1) / k).double()[:, None] ** (1 / d)
    found = dimension(torch.zeros(1, 1).double(), reference, k)
    expected = k * d / torch.log(k / torch.arange(1, k + 1).double()).sum()
    torch.testing.assert_close(found, expected[None])


@pytest.mark.parametrize("d", [2, 5])
def test_local_dimension_of_a_plane_in_space(d):
    flat = torch.zeros(40_000, 12).double()
    flat[:, :d] = torch.rand(40_000, d, generator=rng()).double()
    centre = torch.zeros(1, 12).double()
    centre[:, :d] = 0.5
    centres = centre + 0.05 * torch.randn(50, 12, generator=rng(1)).double() * (flat[0] != 0)
    assert float(dimension(centres, flat, 400).mean()) == pytest.approx(d, rel=0.1)


def test_local_dimension_counts_from_the_first_half(small):
    detector = LocalDimension(small.network, small.x[:200], layers=["3"], neighbours=10)
    hidden = small.network[:3](small.test_x)
    expected = dimension(hidden, small.network[:3](small.x[:100]), 10)
    torch.testing.assert_close(detector.each(small.test_x)[:, 0], expected)
    with pytest.raises(UnusableInput, match="20 neighbours of 30 images"):
        LocalDimension(small.network, small.x[:30])


# Bayesian uncertainty


def test_the_uncertainty_of_one_unit_that_is_dropped_or_not():
    # Hidden value 1: kept (and doubled) or dropped, each with probability 1/2. Logits (2a, 0) or (0, 0).
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.Linear(1, 2))
    with torch.no_grad():
        for layer, weight in ((network[1], [[1.0]]), (network[2], [[0.7], [0.0]])):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.zero_()
    detector = BayesianUncertainty(network, passes=20_000)
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(0)
        found = detector(torch.ones(1, 1, 1, 1))
    kept = torch.tensor([2 * 0.7, 0.0]).softmax(0)
    dropped = torch.tensor([0.5, 0.5])
    expected = (kept - dropped).square().sum() / 4  # variance of two equally likely values
    assert float(found) == pytest.approx(float(expected), rel=0.03)


def test_a_networks_own_dropout_is_used():
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(4, 4), nn.Dropout(0.25), nn.ReLU(), nn.Linear(4, 2)
    ).eval()
    assert BayesianUncertainty(network).rates == {"2": 0.25}
    plain = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    assert BayesianUncertainty(plain, rate=0.3).rates == {"3": 0.3}
    with pytest.raises(Unsupported, match="nothing could be dropped"):
        BayesianUncertainty(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))


# MagNet


class Halved(nn.Module):
    def forward(self, x):
        return 0.5 * x


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_reconstruction_error(p):
    x = torch.rand(5, 1, 4, 4, generator=rng())
    expected = (0.5 * x.numpy()) ** p
    np.testing.assert_allclose(
        ReconstructionError(Halved(), p=p)(x).numpy(), expected.reshape(5, -1).mean(1), rtol=1e-5
    )


def test_divergence_is_scipys(small):
    x = small.test_x[:20]
    found = Divergence(small.network, Halved(), temperature=10.0)(x)
    first, second = ((small.network(z) / 10).softmax(1).numpy() for z in (x, 0.5 * x))
    np.testing.assert_allclose(found.numpy(), jensenshannon(first, second, axis=1) ** 2, rtol=1e-3, atol=1e-6)


class Pixel(Detector):
    def __init__(self, which, scale=1.0):
        super().__init__()
        self.which, self.scale = which, scale

    def forward(self, x):
        return self.scale * x.flatten(1)[:, self.which]


def test_any_of_rejects_what_one_rejects():
    x = torch.rand(200, 1, 1, 2, generator=rng())
    both = AnyOf([(Pixel(0), 0.8), (Pixel(1, 1000.0), 900.0)], x)
    expected = (x.flatten(1)[:, 0] > 0.8) | (x.flatten(1)[:, 1] > 0.9)
    assert torch.equal(both(x) > 0, expected)


# feature squeezing


def test_feature_squeezing_is_the_largest_distance(small):
    x = small.test_x[:30]
    found = FeatureSqueezing(small.network)(x)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (1, 0), (1, 0)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2, 2), axis=(2, 3)).reshape(30, 1, 8, 8, 4)
    median = torch.from_numpy(np.sort(windows, -1)[..., 2].copy())  # SciPy takes the upper of the middle two
    plain = small.network(x).softmax(1)
    expected = [(plain - small.network(z).softmax(1)).abs().sum(1) for z in (torch.round(x), median)]
    torch.testing.assert_close(found, torch.stack(expected).amax(0))


def test_the_differentiable_twin_has_equal_values_and_a_gradient(small):
    detector = FeatureSqueezing(small.network)
    x = small.test_x[:30].clone().requires_grad_()
    twin = detector.differentiable()
    assert torch.equal(twin(x), detector(x))
    (grad,) = torch.autograd.grad(twin(x).sum(), x)
    assert (grad.flatten(1).abs().sum(1) > 0).all()


# the learned detector


def test_a_learned_detector_learns_what_can_be_told_and_repeats_itself():
    x = torch.rand(300, 1, 4, 4, generator=rng())
    x_adv = (x + 0.35 * (torch.arange(16).reshape(4, 4) % 2)).clamp(0, 1)
    first, second = (BinaryDetector(x[:200], x_adv[:200], epochs=40, generator=rng(3)) for _ in range(2))
    assert torch.equal(first(x), second(x))
    assert (first(x[200:]) > 0).float().mean() < 0.15
    assert (first(x_adv[200:]) > 0).float().mean() > 0.85
    with pytest.raises(UnusableInput, match="300 clean and 0 adversarial"):
        BinaryDetector(x, x_adv[:0], generator=rng())
