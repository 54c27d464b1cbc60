"""Every control passes on honest networks and fails on a network or an attack that is broken in its way."""

from dataclasses import dataclass, replace

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn

from unmask.attacks import PGD, Attack
from unmask.diagnostics import BlackBox, Monotone, NullAttack, OneStep, RandomNoise, RandomPoints, Unbounded
from unmask.diagnostics.unbounded import whole_box
from unmask.threat import L1, L2, Linf

from .conftest import LiesOffTheGrid, Noisy, Quantised

CONTROLS = (BlackBox(), Monotone(), NullAttack(), OneStep(), RandomNoise(), Unbounded())


@dataclass(frozen=True)
class Nothing(Attack):
    """An attack that gives up at once."""

    def run(self, classifier, x, y, threat, *, generator):
        return x.clone()


@dataclass(frozen=True)
class OnlySmall(Attack):
    """An attack that works in small balls only."""

    def run(self, classifier, x, y, threat, *, generator):
        attack = PGD(steps=20) if threat.epsilon < 0.15 else Nothing()
        return attack.run(classifier, x, y, threat, generator=generator)


@dataclass(frozen=True)
class Overstepping(Attack):
    """An attack that leaves the ball."""

    def run(self, classifier, x, y, threat, *, generator):
        return PGD(steps=5).run(classifier, x, y, replace(threat, epsilon=0.2), generator=generator)


class Worn(nn.Module):
    """Answers honestly three times, and class 0 ever after."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.answers = 0

    def forward(self, x):
        self.answers += 1
        return self.base(x) * (1.0 if self.answers <= 3 else 0.0)


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: type(c).__name__)
def test_honest_networks_pass(control, honest, examine):
    reading = examine(control, honest)
    assert reading.passed, reading


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: type(c).__name__)
def test_a_reading_is_repeatable_and_says_what_it_is(control, base, examine):
    first, second = examine(control, base), examine(control, base)
    assert first == second
    assert first.name
    assert first.explanation.endswith(".")
    assert "\n" not in first.explanation


def test_unbounded_fails_on_a_quantised_network(base, examine):
    reading = examine(Unbounded(), Quantised(base))
    assert reading.passed is False
    assert reading.decisive
    assert reading.value > 0.3


def test_unbounded_grants_chance_to_a_network_that_ignores_its_input(digits, examine):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.eye(10)[3].expand(len(x), 10) + 0 * x.sum()

    share = float((digits[1] == 3).double().mean())
    reading = examine(Unbounded(), Constant())
    assert reading.value == pytest.approx(share)
    assert reading.passed == (share <= 0.1)


@pytest.mark.parametrize(("norm", "epsilon"), [(Linf, 2.0), (L2, 2.0 * 8), (L1, 2.0 * 64)])
def test_the_whole_box_is_within_reach_from_any_corner(norm, epsilon):
    threat = whole_box(norm(epsilon=0.1, box=(-1.0, 1.0)), torch.zeros(1, 1, 8, 8))
    assert threat.epsilon == pytest.approx(epsilon)
    corner = -torch.ones(1, 1, 8, 8)
    assert threat.contains(-corner, corner).all()


def test_black_box_fails_on_a_quantised_network(base, examine):
    reading = examine(BlackBox(), Quantised(base))
    assert reading.passed is False
    assert reading.value > 0.2


def test_one_step_fails_where_only_the_first_gradient_is_right(base, examine):
    reading = examine(OneStep(), LiesOffTheGrid(base))
    assert reading.passed is False
    assert reading.value > 0.2


def test_monotone_fails_on_an_attack_that_misses_in_larger_balls(base, examine):
    reading = examine(Monotone(attack=OnlySmall()), base)
    assert reading.passed is False
    assert reading.value > 0.2


def test_monotone_gives_the_curve(base, examine, threat):
    reading = examine(Monotone(factors=(2.0, 0.5, 1.0)), base)
    epsilons, accuracies = zip(*reading.curve, strict=True)
    assert epsilons == (0.5 * threat.epsilon, threat.epsilon, 2 * threat.epsilon)
    assert list(accuracies) == [reading.statistics[f"accuracy_at_{f}"] for f in ("0.5", "1", "2")]


def test_random_noise_fails_an_attack_that_guesses_better(base, examine):
    reading = examine(RandomNoise(attack=Nothing()), base, threat=Linf(epsilon=0.3))
    assert reading.passed is False
    assert reading.value > 0


def test_random_noise_says_nothing_where_nothing_breaks(base, examine):
    reading = examine(RandomNoise(), base, threat=Linf(epsilon=1e-6))
    assert reading.passed is None
    assert reading.value == 0


@pytest.mark.parametrize("norm", [Linf, L2, L1])
def test_random_points_lie_on_the_sphere(norm, digits, streams, base):
    from unmask.classifier import Classifier

    x, y = digits
    inner = 0.4 + 0.2 * x  # far from the box's faces, so that nothing is clipped
    threat = norm(epsilon=0.1)
    x_adv = RandomPoints(tries=3).run(Classifier(base), inner, y, threat, generator=streams)
    assert threat.contains(x_adv, inner).all()
    assert torch.allclose(threat.distance(x_adv, inner), torch.tensor(0.1, dtype=torch.float64), atol=1e-4)


def test_null_attack_fails_on_a_network_that_remembers(examine):
    reading = examine(NullAttack(), Worn(trained("plain_cnn")))
    assert reading.passed is False
    assert reading.value < -0.5
    assert "asked before" in reading.explanation


def test_null_attack_fails_on_an_attack_that_leaves_the_ball(base, examine):
    reading = examine(NullAttack(attack=Overstepping()), base)
    assert reading.passed is False
    assert reading.statistics["moved_examples"] == 1.0


def test_null_attack_forgives_noise_and_shows_what_lucky_draws_would_report(base, examine):
    reading = examine(NullAttack(draws=16), Noisy(base, 0.4), deterministic=False)
    assert reading.passed, reading
    assert reading.statistics["any_draw_accuracy"] < reading.statistics["clean_accuracy"] - 0.1
