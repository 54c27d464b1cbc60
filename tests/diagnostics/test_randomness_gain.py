"""Randomness that only adds noise to the answers, and randomness that takes a weakness away: both known in advance."""

import pytest
import torch
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.defenses import SAP, InputNoise
from unmask.diagnostics import RandomnessGain
from unmask.objectives import margin_loss
from unmask.threat import Linf

N, DIMS = 40, 16
ATTACK = PGD(steps=20, rel_step_size=0.125, objective=margin_loss, early_stop=False)


def points():
    """Half a ball's width or two of it from the border, so that the attack breaks half of them."""
    distance = torch.tensor([0.5, 2.0]).repeat(N // 2)[:, None] * 0.05
    return (0.5 + distance.expand(N, DIMS)).reshape(N, 1, 4, 4), torch.ones(N, dtype=torch.int64)


class Plain(nn.Module):
    """The mean pixel, above or below one half; the margin moves by epsilon at most."""

    def forward(self, x):
        return self.logits(x.flatten(1).mean(1) - 0.5)

    def logits(self, value):
        return torch.stack([-value, value], 1)


class NoisyAnswers(Plain):
    """Noise on the answer, of mean zero: the mean of many passes is the plain network."""

    def forward(self, x):
        return self.logits(x.flatten(1).mean(1) - 0.5 + 0.05 * torch.randn(len(x)))


class Rippled(Plain):
    """A ripple that every step finds, and that noise on the input averages away (by exp(-k^2 sigma^2 / 32))."""

    def forward(self, x):
        value = x.flatten(1).mean(1) - 0.5
        return self.logits(value + 0.3 * torch.sin(200 * value))


def read(classifier, x, y, epsilon=0.05, **options):
    diagnostic = RandomnessGain(attack=options.pop("attack", ATTACK), **options)
    return diagnostic.examine(
        classifier, x, y, Linf(epsilon=epsilon), generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("surrogate", [Plain(), None])
def test_noise_on_the_answers_changes_nothing(surrogate):
    x, y = points()
    deployed = Classifier(NoisyAnswers(), passes=100, surrogate=surrogate)
    reading = read(deployed, x, y)
    if surrogate is None:  # one draw for good has a shift of its own: then only the gain can be told
        assert reading.passed is not True
        return
    assert reading.passed is False
    assert reading.value == pytest.approx(0, abs=0.1)
    assert reading.statistics["robust_accuracy"] == pytest.approx(0.5, abs=0.1)
    assert "changes nothing" in reading.explanation


def test_noise_that_smooths_a_ripple_helps():
    x, y = points()
    deployed = InputNoise(sigma=0.1, passes=50).wrap(Classifier(Rippled(), deterministic=True))
    reading = read(deployed, x, y)
    assert reading.passed is True
    assert reading.statistics["robust_accuracy_without_randomness"] == 0
    # Without the ripple half of the points stand; single draws of this gradient, as used here, find few of the rest.
    assert reading.value > 0.4


def test_pruning_that_prunes_nothing_changes_nothing():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 5))
        x = torch.rand(N, 1, 4, 4)
    plain = Classifier(network, deterministic=True)
    y = network(x).argmax(1)
    reading = read(SAP(ratio=1000.0, passes=2).wrap(plain), x, y, epsilon=0.1)
    assert reading.passed is False
    assert reading.statistics["agreement"] > 0.98
    assert abs(reading.value) < 0.05


def test_does_not_apply_without_randomness():
    x, y = points()
    assert read(Classifier(Plain(), deterministic=True), x, y).passed is None
