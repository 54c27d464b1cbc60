"""A control hands out the points behind what it says, so that an audit can keep those that break an example."""

import pytest
import torch

from unmask.attacks import PGD, Square
from unmask.classifier import Classifier
from unmask.diagnostics import BlackBox, GradientCheck, Monotone, NullAttack, OneStep, RandomNoise, Unbounded
from unmask.judge import judge

from .conftest import Quantised

FEW = PGD(steps=8, rel_step_size=0.25)
CONTROLS = (
    BlackBox(black=Square(queries=30), white=FEW),
    Monotone(attack=FEW, factors=(0.5, 1.0, 2.0)),
    NullAttack(attack=FEW),
    OneStep(many=FEW),
    RandomNoise(attack=FEW),
    Unbounded(attack=FEW),
    GradientCheck(),
)


@pytest.mark.parametrize("wrapped", [lambda base: base, Quantised])
@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: type(c).__name__)
def test_what_a_control_says_stands_in_its_points(control, wrapped, base, digits, examine):
    network, (x, y) = wrapped(base), digits
    reading = examine(control, network)
    assert reading.tried
    classifier = Classifier(network, deterministic=True)
    for tried in reading.tried:
        assert tried.by == "" or hasattr(control, tried.by)
        k = len(tried.x_adv)
        seen = judge(classifier, tried.x_adv, x[:k], y[:k], tried.threat, generator=torch.Generator())
        assert seen.allowed.all()
        if tried.failure_rate is not None:
            assert torch.equal(seen.failure_rate, tried.failure_rate)


def test_the_curve_is_what_its_points_leave(base, examine):
    reading = examine(Monotone(attack=FEW), base)
    for (epsilon, accuracy), tried in zip(reading.curve, reading.tried, strict=True):
        assert tried.threat.epsilon == epsilon
        assert 1 - float(tried.failure_rate.mean()) == pytest.approx(accuracy)


def test_the_gradient_check_keeps_the_worst_point_that_it_passed(base, digits, examine):
    (tried,) = examine(GradientCheck(decides_at=1.0), base).tried
    with torch.no_grad():
        logits = base(tried.x_adv)
    assert (
        logits.argmax(1) != digits[1][: len(logits)]
    ).double().mean() > 0.3  # one of them is the sign of the gradient
