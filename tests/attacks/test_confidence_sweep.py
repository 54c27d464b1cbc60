"""The sweep over confidences: what each run is given, and which point is kept."""

from dataclasses import dataclass, field

import torch
from tests.attacks.curved import Asked

from unmask.attacks import PGD, Attack, CarliniWagner, ConfidenceSweep
from unmask.attacks.base import Cost, GradientAttack
from unmask.classifier import Classifier
from unmask.objectives import Confident, margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.types import Outputs


@dataclass(frozen=True, kw_only=True)
class Scripted(GradientAttack):
    """Moves every pixel of an example by a hundredth of the confidence it is told."""

    told: list = field(default_factory=list)

    def cost(self, classes):
        return Cost(forwards=classes, estimates=5)

    def run(self, classifier, x, y, threat, *, generator):
        assert isinstance(self.objective, Confident)
        assert self.objective.inner is margin_loss
        self.told.append((self.objective.confidence, x.clone(), y.clone(), generator.uniform(2)))
        return x + self.objective.confidence / 100


def network(x):
    """Wrong from 0.5 on in the first pixel; rejected below 0.55."""
    lead = x[:, 0] - 0.5
    return Outputs(torch.stack([torch.zeros_like(lead), lead], 1), 0.55 - x[:, 0])


X = torch.tensor([[0.1, 0.5], [0.5, 0.5], [0.52, 0.5], [0.54, 0.5]], dtype=torch.float64)
Y = torch.zeros(4, dtype=torch.int64)


def sweep(*confidences):
    inner, classifier = Scripted(), Asked(network, deterministic=True)
    attack = ConfidenceSweep(inner=inner, confidences=confidences)
    found = attack.run(classifier, X, Y, Linf(epsilon=0.5), generator=Streams.seeded(0, torch.arange(4)))
    return found, inner.told, classifier.meter


def test_who_passes_leaves_and_the_others_are_asked_for_more():
    found, told, meter = sweep(2.0, 6.0, 3.0, 1.0)
    assert [confidence for confidence, *_ in told] == [2.0, 6.0, 3.0, 1.0]
    assert [x[:, 0].tolist() for _, x, _, _ in told] == [
        [0.1, 0.5, 0.52, 0.54],
        [0.1, 0.5, 0.52],
        [0.1],
        [0.1],
    ]
    # The first that passes; of the first example, whom nothing moves far enough, the last.
    torch.testing.assert_close(found[:, 0], torch.tensor([0.11, 0.56, 0.58, 0.56], dtype=torch.float64))
    assert meter.forwards == 4 + 3 + 1 + 1
    numbers = [drawn for *_, drawn in told]  # of each confidence its own
    assert not torch.equal(numbers[0][:3], numbers[1])
    assert not torch.equal(numbers[2], numbers[3])


def test_it_ends_where_nobody_is_left():
    found, told, _ = sweep(46.0, 47.0)
    assert len(told) == 1
    torch.testing.assert_close(found, X + 0.46)


def test_carlini_wagner_is_told_by_its_own_field():
    attack = ConfidenceSweep(inner=CarliniWagner(steps=3))._at(7.0)
    assert attack == CarliniWagner(steps=3, objective=margin_loss, confidence=7.0)
    assert ConfidenceSweep(inner=PGD(steps=3))._at(7.0) == PGD(steps=3, objective=Confident(margin_loss, 7.0))


def test_the_goal_that_names_the_class_is_the_inner_attacks():
    """What counts as won is the threat model's."""
    inner = Scripted()
    found = ConfidenceSweep(inner=inner, confidences=(6.0, 7.0)).run(
        Classifier(network, deterministic=True), X, Y + 1, Linf(epsilon=0.5, goal="targeted"),
        generator=Streams.seeded(0, torch.arange(4)),
    )  # fmt: skip
    assert [len(x) for _, x, _, _ in inner.told] == [4, 1]
    torch.testing.assert_close(found[:, 0], torch.tensor([0.17, 0.56, 0.58, 0.6], dtype=torch.float64))


def test_it_costs_its_runs_and_a_look_after_each():
    cost = ConfidenceSweep(inner=Scripted(), confidences=(1.0, 2.0, 3.0)).cost(4)
    assert (cost.forwards, cost.estimates) == (3 * 5, 3 * 5)

    class Silent(Scripted):
        def cost(self, classes):
            return None

    assert ConfidenceSweep(inner=Silent()).cost(4) is None
    assert issubclass(ConfidenceSweep, Attack)
