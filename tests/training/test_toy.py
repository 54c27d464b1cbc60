"""The toy model of Tsipras et al.: closed form beside draws, and training beside the closed form."""

import math

import pytest
import torch
from torch import nn

from unmask.attacks import FGSM
from unmask.errors import UnusableInput
from unmask.threat import Linf
from unmask.training import AdversarialTraining, Standard
from unmask.training.toy import RobustAndWeakFeatures

MODEL = RobustAndWeakFeatures(p=0.95, eta=0.3, weak=100)


def seed(number=0):
    return torch.Generator().manual_seed(number)


def test_the_lectures_formulae():
    """Weak features alone: Phi((eta - epsilon) sqrt(d - 1)); the first alone: p."""
    weak = torch.ones(101)
    weak[0] = 0
    for epsilon in (0.0, 0.1, 0.3, 0.6):
        phi = 0.5 * math.erfc(-(0.3 - epsilon) * 10 / math.sqrt(2))
        assert MODEL.accuracy(weak, epsilon=epsilon) == pytest.approx(phi, abs=1e-12)
    first = 1 - weak
    for epsilon in (0.0, 0.6, 0.99):
        assert MODEL.accuracy(first, epsilon=epsilon) == pytest.approx(0.95)
    assert MODEL.accuracy(first, epsilon=1.01) == 0


@pytest.mark.parametrize("eta", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("delta", [0.3, 0.1, 1e-2, 1e-4, 1e-8])
def test_the_fewest_weak_features_for_an_error_and_the_lectures_order(eta, delta):
    n = RobustAndWeakFeatures(eta=eta).weak_needed(delta)
    model = RobustAndWeakFeatures(eta=eta, weak=n)
    weak = torch.ones(1 + n)
    weak[0] = 0
    assert model.accuracy(weak) >= 1 - delta - 1e-15
    if n > 1:
        assert RobustAndWeakFeatures(eta=eta, weak=n - 1).accuracy(weak[:-1]) < 1 - delta
    assert n <= 2 * math.log(1 / delta) / eta**2 + 1


def test_the_orders_factor_grows_to_two():
    model = RobustAndWeakFeatures(eta=1e-3)
    factors = [model.weak_needed(d) * 1e-6 / math.log(1 / d) for d in (0.1, 0.01, 1e-4, 1e-8, 1e-100)]
    assert factors == sorted(factors)
    assert factors[0] == pytest.approx(0.713, abs=1e-3)
    assert 1.9 < factors[-1] < 2


def test_an_error_rate_that_guessing_has_is_refused():
    for delta in (0.0, 0.5, 1.0):
        with pytest.raises(UnusableInput, match="delta is"):
            MODEL.weak_needed(delta)


def test_closed_form_beside_draws():
    data = MODEL.draw(200_000, generator=seed())
    x, sign = data.x.flatten(1), 2 * data.y - 1
    weights, bias = 0.2 + 0.3 * torch.randn(101, generator=seed(1)), 0.7
    weights[0] = 2.0
    for epsilon in (0.0, 0.02, 0.05):
        worst = sign * (x @ weights + bias) - epsilon * weights.abs().sum()
        truth = MODEL.accuracy(weights, bias=bias, epsilon=epsilon)
        deviation = math.sqrt(truth * (1 - truth) / len(x))
        assert 0.05 < truth < 0.99
        assert abs(float((worst > 0).double().mean()) - truth) < 4 * deviation


def test_natural_weights_are_the_best():
    best = MODEL.accuracy(MODEL.natural())
    for seed_number in range(20):
        other = MODEL.natural() * (1 + 0.3 * torch.randn(101, generator=seed(seed_number)))
        assert MODEL.accuracy(other) < best


def test_more_weak_features_more_accuracy_and_no_robustness():
    models = [RobustAndWeakFeatures(p=0.95, eta=0.3, weak=n) for n in (10, 30, 100, 300)]
    standard = [m.accuracy(m.natural()) for m in models]
    robust = [m.accuracy(m.natural(), epsilon=0.6) for m in models]
    assert standard == sorted(standard)
    assert robust == sorted(robust, reverse=True)
    assert standard[-1] > 0.9999
    assert robust[-1] < 1e-4
    for model, clean, attacked in zip(models, standard, robust, strict=True):
        assert attacked <= model.robust_ceiling(clean)


def test_training_ends_where_the_theory_says():
    """Standard training near the Bayes classifier and its fall; adversarial training at p, under any radius."""
    data = MODEL.draw(20_000, generator=seed())
    test = MODEL.draw(20_000, generator=seed(1))
    # Without a box: the features are no pixels. One step of FGSM is the exact maximiser for a linear network.
    threat = Linf(epsilon=0.6, box=(-math.inf, math.inf))
    plain = {"epochs": 4, "batch_size": 200, "learning_rate": 0.05, "weight_decay": 0.0, "pad": 0}
    found = {}
    for recipe in (
        Standard(**plain, mirror=False),
        AdversarialTraining(**plain, mirror=False, attack=FGSM()),
    ):
        network = nn.Sequential(nn.Flatten(), nn.Linear(101, 2))
        nn.init.zeros_(network[1].weight)
        nn.init.zeros_(network[1].bias)
        recipe.fit(network, data, threat, generator=seed())
        layer = network[1]
        weights = (layer.weight[1] - layer.weight[0]).detach()
        bias = float((layer.bias[1] - layer.bias[0]).detach())
        for epsilon in (0.0, 0.3, 0.6):
            theory = MODEL.accuracy(weights, bias=bias, epsilon=epsilon)
            worst = (2 * test.y - 1) * (test.x.flatten(1) @ weights + bias) - epsilon * weights.abs().sum()
            measured = float((worst > 0).double().mean())
            assert abs(measured - theory) < 4 * math.sqrt(max(theory * (1 - theory), 1e-4) / len(test))
            found[type(recipe).__name__, epsilon] = theory
    bayes = [MODEL.accuracy(MODEL.natural(), epsilon=e) for e in (0.0, 0.3, 0.6)]
    assert found["Standard", 0.0] == pytest.approx(bayes[0], abs=0.003)
    assert found["Standard", 0.6] < 0.02
    assert found["Standard", 0.6] <= MODEL.robust_ceiling(found["Standard", 0.0])
    for epsilon in (0.0, 0.3, 0.6):
        assert found["AdversarialTraining", epsilon] == pytest.approx(0.95, abs=0.003)


def test_unusable_input_is_named():
    with pytest.raises(UnusableInput, match=r"p is 0\.5"):
        RobustAndWeakFeatures(p=0.5)
    with pytest.raises(UnusableInput, match="weak is 0"):
        RobustAndWeakFeatures(weak=0)
