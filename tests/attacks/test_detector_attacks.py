"""Attacks on a classifier beside a detector, where it is known what can be reached."""

import os

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from unmask.attacks import PGD, CarliniWagner, ConfidenceSweep, FeatureMatching, JointPGD
from unmask.attacks.joint_pgd import orthogonal
from unmask.classifier import Classifier
from unmask.errors import Unsupported, UnusableInput
from unmask.gradients import FiniteDifference
from unmask.judge import fooled, judge
from unmask.objectives import margin_loss
from unmask.threat import L2, Linf
from unmask.types import Outputs

SIZE = 12


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


class LinearPair:
    """Two classes and a detector, both linear: logits `(0, w x + b)`, score `v x + c`."""

    def __init__(self, seed: int):
        numbers = torch.randn(2, SIZE, generator=rng(seed)).double()
        self.w, self.v = numbers
        self.v = self.v + 0.7 * self.w  # what fools the classifier alarms the detector
        self.b, self.c = -0.5 * self.w.sum() - 1.0, -0.5 * self.v.sum() - 0.3

    def __call__(self, x):
        flat = x.flatten(1)
        logit = flat @ self.w.to(x) + self.b.to(x)
        return Outputs(torch.stack([torch.zeros_like(logit), logit], 1), flat @ self.v.to(x) + self.c.to(x))

    def least_radius(self, x: np.ndarray) -> float:
        """Of the Linf ball around `x` that holds a point of class 1 that is not rejected: a linear program."""
        eye, one = np.eye(SIZE), np.ones((SIZE, 1))
        rows = np.block([
            [eye, -one],
            [-eye, -one],
            [-self.w.numpy()[None], np.zeros((1, 1))],
            [self.v.numpy()[None], np.zeros((1, 1))],
        ])  # fmt: skip
        limits = np.concatenate([x, -x, [float(self.b)], [-float(self.c)]])
        cost = np.r_[np.zeros(SIZE), 1.0]
        found = linprog(cost, A_ub=rows, b_ub=limits, bounds=[(0, 1)] * SIZE + [(0, None)])
        return float(found.fun) if found.success else np.inf


@pytest.fixture(scope="module")
def pairs():
    """Problems that the classifier gets right, whose least radius is known."""
    found = []
    for seed in range(24):
        pair = LinearPair(seed)
        x = 0.5 + 0.1 * (torch.rand(1, 1, 3, 4, generator=rng(seed)).double() - 0.5)
        if pair(x).logits.argmax() == 0:
            radius = pair.least_radius(x.flatten().numpy())
            if 0.02 < radius < 0.4:
                found.append((pair, x, radius))
    assert len(found) >= 8
    return found


def reached(attack, pair, x, epsilon):
    classifier, y, threat = (
        Classifier(pair, deterministic=True),
        torch.zeros(1, dtype=torch.int64),
        Linf(epsilon=epsilon),
    )
    x_adv = attack.run(classifier, x, y, threat, generator=rng())
    return bool(judge(classifier, x_adv, x, y, threat, generator=rng()).failure_rate > 0)


@pytest.mark.parametrize("rule", ["selective", "orthogonal"])
def test_joint_pgd_reaches_what_a_linear_program_reaches(rule, pairs):
    attack = JointPGD(rule=rule, steps=200, rel_step_size=0.05)
    above = [reached(attack, pair, x, 1.3 * radius) for pair, x, radius in pairs]
    below = [reached(attack, pair, x, 0.99 * radius) for pair, x, radius in pairs]
    assert np.mean(above) >= 0.9, above
    assert not any(below)


def test_plain_pgd_does_not(pairs):
    attack = PGD(objective=margin_loss, steps=200, rel_step_size=0.05)
    assert np.mean([reached(attack, pair, x, 1.3 * radius) for pair, x, radius in pairs]) < 0.7


def test_the_projection_is_orthogonal_and_loses_nothing_it_needs():
    grad, across = torch.randn(2, 5, 1, 2, 2, generator=rng()).double()
    rest = orthogonal(grad, across)
    torch.testing.assert_close((rest * across).flatten(1).sum(1), torch.zeros(5).double())
    torch.testing.assert_close(orthogonal(rest, across), rest)
    assert torch.equal(orthogonal(grad, torch.zeros_like(grad)), grad)
    assert torch.equal(orthogonal(grad, 2 * grad), grad)  # parallel: nothing would be left


@pytest.mark.skipif("UNMASK_SHAPES" in os.environ, reason="the checker of signatures refuses it first")
def test_an_unknown_rule_is_refused():
    with pytest.raises(UnusableInput, match="choose selective or orthogonal"):
        JointPGD(rule="both")


# confidence


class Sure:
    """Rejects what it is not sure of: predictions whose lead is below two."""

    def __call__(self, x):
        lead = 10 * (x.flatten(1).mean(1) - 0.5)
        logits = torch.stack([-lead / 2, lead / 2], 1)
        return Outputs(logits, 2.0 - lead.abs())


@pytest.mark.parametrize(
    ("inner", "threat"),
    [(PGD(steps=40), Linf(epsilon=0.5)), (CarliniWagner(steps=60, searches=4), L2(epsilon=2.0))],
)
def test_a_detector_of_doubt_falls_to_confidence_only(inner, threat):
    x, y = torch.full((3, 1, 2, 2), 0.4), torch.zeros(3, dtype=torch.int64)
    classifier = Classifier(Sure(), deterministic=True)
    # Adam overshoots, so that what Carlini-Wagner reaches at zero is not known.
    cases = [((0.0, 1.0, 3.0), True), *([((0.0,), False)] if isinstance(inner, PGD) else [])]
    for confidences, expected in cases:
        attack = ConfidenceSweep(inner=inner, confidences=confidences)
        x_adv = attack.run(classifier, x, y, threat, generator=rng())
        assert (fooled(classifier(x_adv, generator=rng()), y, threat) == expected).all(), confidences


# feature matching


def test_feature_matching_of_the_image_itself_is_the_projection_of_the_guide():
    guides = torch.stack([torch.full((1, 2, 2), v) for v in (0.1, 0.9, 0.95)])
    x, y = torch.full((2, 1, 2, 2), 0.3), torch.zeros(2, dtype=torch.int64)

    def network(z):
        lead = z.flatten(1).mean(1) - 0.8
        return torch.stack([-lead, lead], 1)

    attack = FeatureMatching(features=nn.Flatten(), guides=guides, early_stop=False, steps=200)
    for epsilon, expected in (
        (0.2, 0.5),
        (0.7, 0.9),
    ):  # the wall of the ball, then the nearest guide of class 1
        threat = Linf(epsilon=epsilon)
        x_adv = attack.run(Classifier(network, deterministic=True), x, y, threat, generator=rng())
        torch.testing.assert_close(x_adv, torch.full_like(x, expected), atol=0.02, rtol=0)
        assert threat.contains(x_adv, x).all()


def test_feature_matching_counts_what_it_costs_and_stops_when_fooled():
    guides = torch.stack([torch.full((1, 2, 2), v) for v in (0.1, 0.9)])
    x, y = torch.full((4, 1, 2, 2), 0.3), torch.zeros(4, dtype=torch.int64)
    classifier = Classifier(
        lambda z: torch.stack([0.5 - z.mean((1, 2, 3)), z.mean((1, 2, 3)) - 0.5], 1), deterministic=True
    )
    attack = FeatureMatching(features=nn.Flatten(), guides=guides, steps=10)
    x_adv = attack.run(classifier, x, y, Linf(epsilon=0.1), generator=rng())
    assert (classifier.meter.forwards, classifier.meter.backwards) == (2 * 11 * 4 + 4 + 2 * 2, 11 * 4)
    x_adv = attack.run(classifier, x, y, Linf(epsilon=0.5), generator=rng())
    assert (classifier(x_adv, generator=rng()).logits.argmax(1) == 1).all()
    assert classifier.meter.forwards < 2 * (2 * 11 * 4 + 4 + 2 * 2)
    assert x_adv.max() < 0.85  # left before the guide


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_feature_matching_without_a_guide_of_the_class(goal):
    x, y = torch.full((1, 1, 2, 2), 0.3), torch.ones(1, dtype=torch.int64)
    value = 0.1 if goal == "targeted" else 0.9
    guides = torch.full((2, 1, 2, 2), value)
    classifier = Classifier(
        lambda z: torch.stack([0.5 - z.mean((1, 2, 3)), z.mean((1, 2, 3)) - 0.5], 1), deterministic=True
    )
    with pytest.raises(UnusableInput, match=r"there is no guide of .*class.* 1"):
        FeatureMatching(features=nn.Flatten(), guides=guides).run(
            classifier, x, y, Linf(epsilon=0.1, goal=goal), generator=rng()
        )


def corner(x):
    """Class 1 right of 0.55, class 2 above 0.6; whoever goes right is rejected."""
    right, up = x.flatten(1).unbind(1)
    return Outputs(torch.stack([0 * right, 10 * (right - 0.55), 10 * (up - 0.6)], 1), right - 0.55)


def test_the_class_that_passes_is_not_the_nearest_one():
    x, y, threat = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64), Linf(epsilon=0.15)
    classifier = Classifier(corner, deterministic=True)
    for targets, passes in ((0, False), (1, False), (2, True)):
        attack = JointPGD(targets=targets)
        x_adv = attack.run(classifier, x, y, threat, generator=torch.Generator().manual_seed(0))
        assert bool(fooled(corner(x_adv), y, threat)) == passes
    # An estimator that repeats the examples asks the joint objective for the targets of each copy.
    sampled = JointPGD(targets=2, gradient=FiniteDifference(samples=8, delta=0.01))
    assert fooled(corner(sampled.run(classifier, x, y, threat, generator=rng())), y, threat)
    with pytest.raises(Unsupported, match="use targets=0"):
        JointPGD(targets=2).run(
            classifier, x, y, Linf(epsilon=0.15, goal="targeted"), generator=torch.Generator()
        )
