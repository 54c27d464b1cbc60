"""Transfer: the inner attack sees the surrogate alone, and what it finds is handed over."""

from dataclasses import dataclass

import pytest
import torch

from unmask.attacks import APGD, PGD, Attack, Setting, Transfer
from unmask.attacks.base import Cost
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.threat import Linf


@dataclass(frozen=True)
class Asks(Attack):
    """Moves towards what the classifier that it is given says, and remembers which one that was."""

    seen: list

    def describe(self):
        return "asks"

    def cost(self, classes):
        return Cost(forwards=classes)

    def run(self, classifier, x, y, threat, *, generator):
        self.seen.append((classifier, threat, generator, y))
        return x + 0 * classifier(x, generator=generator).logits.sum() + 0.01


def network(x):
    raise AssertionError("the target is not queried")


def surrogate(x):
    return x.flatten(1)[:, :2]


def test_the_inner_attack_is_given_the_surrogate_and_the_rest_as_it_was():
    seen = []
    x, y, generator = torch.full((3, 1, 2, 2), 0.5), torch.tensor([0, 1, 0]), torch.Generator()
    classifier = Classifier(network, surrogate=surrogate, passes=7, deterministic=True)
    threat = Linf(epsilon=0.1)
    found = Transfer(inner=Asks(seen)).run(classifier, x, y, threat, generator=generator)
    torch.testing.assert_close(found, x + 0.01)
    inside, *others = seen[0]
    assert inside.network is surrogate
    assert inside.surrogate is None
    assert inside.passes == 7
    assert others == [threat, generator, y]
    assert classifier.meter.forwards == 3  # of the surrogate, on the same meter


def test_it_needs_a_surrogate():
    with pytest.raises(Unsupported, match=r"use `classifier.with_surrogate\(f\)`, or `Substitute`"):
        Transfer().run(
            Classifier(surrogate), torch.zeros(1, 2), torch.zeros(1).long(), Linf(epsilon=0.1),
            generator=torch.Generator(),
        )  # fmt: skip


def test_it_costs_and_is_called_what_its_inner_attack_is():
    attack = Transfer(inner=Asks([]))
    assert attack.describe() == "asks on the surrogate, transferred"
    assert attack.cost(5) == Cost(forwards=5)
    assert Transfer(inner=PGD(steps=3)).cost(5) == PGD(steps=3).cost(5)
    assert Transfer().inner == APGD(early_stop=False)
    assert attack.fit(Setting()) is attack
