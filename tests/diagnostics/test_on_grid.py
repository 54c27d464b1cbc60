"""An attack among the images that could be stored finds what a network hides between the levels of its data."""

import pytest
import torch
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.diagnostics.on_grid import DataLevels, OnGrid, levels_of
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import L1, L2, Linf

N, LEVELS = 12, 16
X = (torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * LEVELS).round() / LEVELS
STREAMS = Streams.seeded(0, torch.arange(N))
WEIGHT = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))


class Between(nn.Module):
    """Linear on the levels; between them a hundredth of the way from the nearest stored image."""

    def stored(self, x):
        return ((x * LEVELS - (x * LEVELS).round()).abs() < 1e-3).all(1)

    def forward(self, x):
        x = x.flatten(1)
        own = X.flatten(1)[torch.cdist(x.detach(), X.flatten(1)).argmin(1)]
        return torch.where(self.stored(x)[:, None], x, own + 0.01 * (x - own)) @ WEIGHT


class Bytes(Between):
    def stored(self, x):
        return super().stored(x) | ((x * 255 - (x * 255).round()).abs() < 1e-2).all(1)


class Mostly(Between):
    def stored(self, x):
        return ((x * LEVELS).frac() < 1e-3).double().mean(1) > 0.9


Y = Between()(X).argmax(1)


def left(network, attack, threat):
    classifier = Classifier(network)
    x_adv = attack.run(classifier, X, Y, threat, generator=STREAMS)
    return 1 - float(judge(classifier, x_adv, X, Y, threat, generator=STREAMS).failure_rate.mean())


@pytest.mark.parametrize("network", [Between, Bytes, Mostly])
def test_it_breaks_what_an_attack_between_the_levels_does_not(network):
    threat = Linf(epsilon=0.3)
    usual = left(network(), PGD(steps=20, rel_step_size=0.125), threat)
    reading = DataLevels.of(X, threat).examine(Classifier(network()), X, Y, threat, generator=STREAMS)
    assert usual > 0.8
    assert reading.value < 0.3
    assert reading.tried[0].by == "attack"
    assert reading.passed is None


@pytest.mark.parametrize(
    "threat", [Linf(epsilon=0.2), Linf(epsilon=2 / 16), L2(epsilon=0.5), L1(epsilon=1.0)], ids=str
)
def test_its_points_lie_on_the_levels_and_in_the_ball(threat):
    attack = OnGrid(attack=PGD(steps=5), levels=LEVELS)
    x_adv = attack.run(Classifier(Between()), X, Y, threat, generator=STREAMS)
    assert levels_of(x_adv) == LEVELS
    assert (threat.distance(x_adv, X) <= threat.epsilon * (1 + 1e-6)).all()
    assert x_adv.min() >= 0
    assert x_adv.max() <= 1


def test_data_that_lie_on_no_levels_are_not_asked_about():
    assert DataLevels.of(X + 0.001, Linf(epsilon=0.3)) is None
    assert DataLevels.of((X * 255).round() / 255, Linf(epsilon=0.3)).attack.levels == 255


@pytest.mark.parametrize("ball", [Linf, L2, L1])
def test_a_ball_without_another_stored_image_is_not_asked_about(ball):
    assert DataLevels.of(X, ball(epsilon=0.99 / LEVELS)) is None
    assert DataLevels.of(X, ball(epsilon=1 / LEVELS)) is not None


class Robust(nn.Module):
    def forward(self, x):
        nearest = torch.cdist(x.detach().flatten(1), X.flatten(1)).argmin(1)
        return 100 * nn.functional.one_hot(Y[nearest], 3) + x.flatten(1) @ WEIGHT


def asked_of(network, standing, threat=Linf(epsilon=0.3)):
    """How many images an attack was run on, and the reading."""
    several = [t.repeat_interleave(3, 0) for t in (X, Y)]
    classifier = Classifier(network)
    diagnostic = DataLevels.of(X, threat, standing, early_stop=True)
    streams = Streams.seeded(0, torch.arange(len(several[0])))
    reading = diagnostic.examine(classifier, *several, threat, generator=streams)
    changed = (reading.tried[0].x_adv != several[0]).flatten(1).any(1)
    return changed, reading


def test_only_what_stands_is_attacked_and_at_first_a_few_of_these():
    standing = torch.arange(3 * N) % 2 == 1
    changed, reading = asked_of(Robust(), standing, threat=Linf(epsilon=1 / LEVELS))
    assert reading.value == 1.0
    assert changed.nonzero()[:, 0].tolist() == [2 * n + 1 for n in range(11)]
    assert reading.explanation == "100.0% of 11 survive an attack on the 17 levels of the data."


def test_where_one_of_the_few_breaks_all_that_stands_is_attacked():
    standing = torch.arange(3 * N) % 2 == 1
    changed, reading = asked_of(Between(), standing)
    assert torch.equal(changed, standing)
    assert reading.tried[0].failure_rate[~standing].eq(0).all()


def test_where_nothing_stands_nothing_is_asked():
    changed, reading = asked_of(Between(), torch.zeros(3 * N, dtype=torch.bool))
    assert not changed.any()
    assert (reading.value, reading.explanation) == (None, "Nothing was left to attack.")
