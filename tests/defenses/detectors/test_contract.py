"""What every detector promises, and what holding one to a false-positive rate means."""

import numpy as np
import pytest
import torch
from scipy.stats import binom
from sklearn.metrics import roc_auc_score
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.defenses.detectors import (
    AnyOf,
    AttributeSteering,
    AttributionMap,
    BayesianUncertainty,
    BinaryDetector,
    Detection,
    Divergence,
    FeatureSqueezing,
    KernelDensity,
    Layers,
    LocalDimension,
    Mahalanobis,
    ReconstructionError,
    suspicion,
    threshold_at,
)
from unmask.errors import Unsupported, UnusableInput
from unmask.judge import judge
from unmask.threat import Linf


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """The best linear autoencoder of some images: their principal components."""

    def __init__(self, x, components=24):
        super().__init__()
        self.mean = x.flatten(1).mean(0)
        self.basis = torch.linalg.svd(x.flatten(1) - self.mean, full_matrices=False).Vh[:components]

    def forward(self, x):
        code = (x.flatten(1) - self.mean) @ self.basis.T
        return (self.mean + code @ self.basis).reshape(x.shape)


NAMES = (
    "kernel density", "uncertainty", "Mahalanobis", "local dimension", "reconstruction", "divergence", "any of",
    "squeezing", "learned", "learned, hidden", "steering", "attribution", "saliency",
)  # fmt: skip


@pytest.fixture(scope="module")
def adversarial(small):
    attack, threat = PGD(steps=20, early_stop=False), Linf(epsilon=0.2)
    classifier = Classifier(small.network, deterministic=True)
    return attack.run(classifier, small.test_x, small.test_y, threat, generator=rng())


@pytest.fixture(scope="module")
def detectors(small):
    network, x, y = small.network, small.x, small.y
    classifier = Classifier(network, deterministic=True)
    x_adv = PGD(steps=10, early_stop=False).run(classifier, x, y, Linf(epsilon=0.2), generator=rng())
    coder = Linear(x)
    reconstruction, divergence = ReconstructionError(coder), Divergence(network, coder)
    return {
        "kernel density": KernelDensity(network, x, y),
        "uncertainty": BayesianUncertainty(network),
        "Mahalanobis": Mahalanobis(network, x, y, x_adv=x_adv),
        "local dimension": LocalDimension(network, x, x_adv=x_adv),
        "reconstruction": reconstruction,
        "divergence": divergence,
        "any of": AnyOf([(reconstruction, 0.01), (divergence, 0.01)], x),
        "squeezing": FeatureSqueezing(network),
        "learned": BinaryDetector(x, x_adv, generator=rng()),
        "learned, hidden": BinaryDetector(x, x_adv, layers=Layers(network), generator=rng()),
        "steering": AttributeSteering(network, x),
        "attribution": AttributionMap(network, x),
        "saliency": AttributionMap(network, x, attribution="gradient"),
    }


def test_all_are_listed(detectors):
    assert tuple(detectors) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_rate_is_kept_on_images_that_it_was_not_set_on(name, detectors, small):
    half = len(small.held_out) // 2
    defence = Detection.at(0.05, detectors[name], small.held_out[:half], generator=rng())
    on_itself = suspicion(detectors[name], small.held_out[:half], generator=rng()) > defence.threshold
    assert on_itself.float().mean() <= 0.05
    other = small.held_out[half:]
    rejected = int((suspicion(detectors[name], other, generator=rng(1)) > defence.threshold).sum())
    assert rejected <= binom.ppf(
        0.9999, len(other), 0.10
    )  # twice the rate leaves room for the threshold's own error


@pytest.mark.parametrize("name", NAMES)
def test_one_score_an_image_whatever_its_neighbours(name, detectors, small):
    x = small.test_x[:6]
    classifier = Detection(detector=detectors[name], threshold=0.0).wrap(Classifier(small.network))
    score = classifier(x, generator=rng()).detector_score
    assert score is not None
    assert (score.shape, score.dtype) == ((6,), torch.float32)
    if name != "uncertainty":
        torch.testing.assert_close(detectors[name](x[2:3]), detectors[name](x)[2:3], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_what_it_looks_at_stays_as_it_was(name, detectors, small):
    state = torch.get_rng_state()
    before = {k: v.clone() for k, v in small.network.state_dict().items()}
    suspicion(detectors[name], small.test_x[:4], generator=rng())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in small.network.state_dict().items())
    assert not any(m._forward_pre_hooks for m in small.network.modules())
    assert not any(m.training for m in small.network.modules())


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("uncertainty", "squeezing")])
def test_the_gradient_is_the_slope(name, detectors, small):
    x = small.test_x[:8].clone().requires_grad_()
    score = detectors[name](x)
    (grad,) = torch.autograd.grad(score.sum(), x)
    direction = torch.randn(x.shape, generator=rng(4))
    step = 1e-3
    with torch.no_grad():
        slope = (detectors[name](x + step * direction) - detectors[name](x - step * direction)) / (2 * step)
    expected = (grad * direction).flatten(1).sum(1)
    # Most of the eight: a unit that switches within the step makes a kink.
    close = (slope - expected).abs() <= 0.05 * expected.abs() + 0.02 * expected.abs().max()
    assert close.float().mean() >= 0.7, (slope, expected)


def test_plain_pgd_is_told_from_clean_images(detectors, small, adversarial):
    """The lecture: they "are indeed often able to detect adversarial examples derived from vanilla PGD"."""
    label = np.r_[np.zeros(len(adversarial)), np.ones(len(adversarial))]
    areas = {}
    for name, detector in detectors.items():
        scores = [suspicion(detector, x, generator=rng()).numpy() for x in (small.test_x, adversarial)]
        areas[name] = roc_auc_score(label, np.concatenate(scores))
    assert all(areas[name] > 0.9 for name in ("learned", "Mahalanobis", "reconstruction", "attribution")), (
        str(areas)
    )
    assert sum(area > 0.7 for area in areas.values()) >= 9, str(areas)


def test_a_rejected_input_is_no_success(small, adversarial):
    threat = Linf(epsilon=0.2)
    plain = Classifier(small.network, deterministic=True)

    class Everything(ReconstructionError):
        def forward(self, x):
            return x.new_ones(len(x))

    undefended = judge(plain, adversarial, small.test_x, small.test_y, threat, generator=rng())
    assert undefended.failure_rate.mean() > 0.5
    for threshold, successes in ((0.0, 0.0), (1.0, float(undefended.failure_rate.mean()))):
        guarded = Detection(detector=Everything(nn.Identity()), threshold=threshold).wrap(plain)
        found = judge(guarded, adversarial, small.test_x, small.test_y, threat, generator=rng())
        assert float(found.failure_rate.mean()) == successes
        assert guarded.surrogate is small.network


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.0, 9.0), (0.1, 8.0), (0.25, 7.0), (0.5, 4.0), (0.999, 0.0)]
)
def test_thresholds(rate, expected):
    scores = torch.arange(10.0)[torch.randperm(10, generator=rng())]
    assert threshold_at(scores, rate) == expected
    assert (scores > expected).float().mean() <= rate


def test_ties_never_exceed_the_rate():
    scores = torch.tensor([0.0] * 5 + [1.0] * 5)
    assert threshold_at(scores, 0.2) == 1.0


@pytest.mark.parametrize(
    ("scores", "rate", "told"),
    [
        (torch.ones(3), 1.0, "the false-positive rate is 1.0"),
        (torch.ones(3), -0.1, "the false-positive rate is -0.1"),
        (torch.tensor([1.0, torch.inf]), 0.1, "1 of 2 clean scores is not finite"),
        (torch.ones(0), 0.1, "0 of 0 clean scores"),
    ],
)
def test_no_thresholds(scores, rate, told):
    with pytest.raises(UnusableInput, match=told):
        threshold_at(scores, rate)


def test_layers_by_name(small):
    logits, (hidden,) = Layers(small.network)(small.test_x[:3])
    assert torch.equal(logits, small.network(small.test_x[:3]))
    assert torch.equal(hidden, small.network[:-1](small.test_x[:3]))
    with pytest.raises(Unsupported, match="no module '9'; it has 0, 1, 2"):
        Layers(small.network, ["9"])
    with pytest.raises(Unsupported, match=r"no nn\.Linear"):
        Layers(nn.Sequential(nn.Flatten()))
