"""What every attack inherits: the call on plain tensors, and how it fits itself to a network."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from unmask.attacks import (
    APGD,
    FAB,
    FGSM,
    PGD,
    Attack,
    CarliniWagner,
    JointPGD,
    MomentumPGD,
    Setting,
    SparsePGD,
    Square,
    Substitute,
    TargetedAPGD,
    Transfer,
)
from unmask.attacks.base import beside
from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import EOT, Exact, FiniteDifference, Smoothing
from unmask.objectives import Targeted, Undetected, cross_entropy, dlr
from unmask.randomness import Streams
from unmask.threat import L2, Linf


@dataclass(frozen=True)
class Watching(Attack):
    """Remembers what it is given and proposes a step that is far too long."""

    seen: list

    def run(self, classifier, x, y, threat, *, generator):
        self.seen.append((classifier, x, y, threat, generator.uniform(3)))
        return x + 10 * (generator.uniform(*x.shape[1:]) - 0.5)


X, Y = torch.full((4, 1, 2, 2), 0.5), torch.tensor([0, 1, 0, 1])
NETWORK = nn.Flatten().eval()


def test_a_call_makes_threat_model_and_classifier_and_puts_the_proposal_into_the_ball():
    seen = []
    found = Watching(seen)(NETWORK, X, Y, epsilon="51/255", norm="l2")
    classifier, x, y, threat, _ = seen[0]
    assert classifier.network is NETWORK
    assert x is X
    assert y is Y
    assert threat == L2(epsilon=0.2)
    assert threat.contains(found, X).all()
    assert not torch.equal(found, X)
    ready = Classifier(NETWORK)
    Watching(seen)(ready, X, Y, epsilon=0.1)
    assert seen[1][0] is ready
    assert seen[1][3] == Linf(epsilon=0.1)


def test_a_call_repeats_itself_by_its_seed_and_each_example_has_numbers_of_its_own():
    seen = []
    for seed in ({}, {"seed": 0}, {"seed": 1}):
        Watching(seen)(NETWORK, X, Y, epsilon=0.1, **seed)
    numbers = [drawn for *_, drawn in seen]
    assert torch.equal(numbers[0], numbers[1])
    assert not torch.equal(numbers[1], numbers[2])
    assert torch.equal(numbers[0], Streams.seeded(0, torch.arange(4), "Watching").uniform(3))


def test_what_is_not_to_be_attacked_is_named():
    with pytest.raises(UnusableInput, match=r"x lies in \[-0.25, 2\], not in \[0, 1\]; scale it"):
        Watching([])(NETWORK, torch.tensor([[-0.25, 2.0]]), Y[:1], epsilon=0.1)
    with pytest.raises(UnusableInput, match=r"training mode; call its eval\(\) first"):
        Watching([])(nn.Flatten(), X, Y, epsilon=0.1)
    ends = torch.tensor([[0.0, 1.0]])
    Watching([])(NETWORK, ends, Y[:1], epsilon=0.1)  # the ends of the range are inside
    Watching([])(Classifier(lambda x: x), ends, Y[:1], epsilon=0.1)  # a function has no mode


@pytest.mark.parametrize(
    ("x", "y"),
    [(X.numpy(), Y.numpy()), (X.tolist(), Y.tolist()), (X, Y.int()), (X, Y.to(torch.uint8))],
    ids=["arrays", "lists", "int32", "bytes"],
)
def test_a_call_takes_arrays_and_labels_of_any_whole_type(x, y):
    seen = []
    Watching(seen)(NETWORK, x, y, epsilon=0.1)
    assert torch.equal(seen[0][1], X)
    assert torch.equal(seen[0][2], Y)
    assert seen[0][2].dtype == torch.int64


@pytest.mark.parametrize("y", [torch.eye(2)[Y], Y.float(), Y[:, None], Y[:3], Y > 0, torch.tensor(1)])
def test_labels_that_are_no_classes_are_named(y):
    with pytest.raises(UnusableInput, match=r"y is \w+ of shape .* each of the 4 inputs"):
        Watching([])(NETWORK, X, y, epsilon=0.1)


def test_an_attack_of_ones_own_fits_everywhere_and_says_its_name():
    attack = Watching([])
    assert attack.fit(Setting(random=True, detector=True)) is attack
    assert attack.describe() == "Watching"
    assert attack.cost(3) is None
    assert (attack.needs_gradient, attack.chooses_targets) == (False, False)
    assert attack.ascent == "none"


def test_a_gradient_attack_takes_the_settings_gradient_past_its_detector_to_the_end_of_a_random_network():
    gradient = Exact()
    fitted = PGD(objective=dlr, steps=7).fit(Setting(gradient=gradient, random=True, detector=True))
    assert fitted.gradient is gradient
    assert fitted == PGD(objective=Undetected(dlr), steps=7, early_stop=False)
    assert PGD().fit(Setting()) == PGD()
    assert APGD(early_stop=False).fit(Setting()).early_stop
    assert FGSM().fit(Setting(classes=2)) == FGSM()
    assert TargetedAPGD().fit(Setting(classes=2)) is None
    assert TargetedAPGD().fit(Setting(classes=3)) is not None


def test_an_objective_that_pulls_towards_a_class_is_left_alone_by_a_detector():
    aim = Targeted(torch.tensor([1]))
    assert beside(aim, True) is aim
    assert beside(cross_entropy, True) == Undetected(cross_entropy)
    assert beside(cross_entropy, False) is cross_entropy


@pytest.mark.parametrize("ascending", [APGD, JointPGD, MomentumPGD, PGD, SparsePGD, TargetedAPGD])
def test_an_ascent_says_by_which_slopes_it_climbs(ascending):
    slopes = FiniteDifference()
    by = {ascending(gradient=g).ascent for g in (Exact(), EOT(Exact()), Smoothing(Exact(), sigma=0.1))}
    assert by == {"autograd"}
    by = {ascending(gradient=g).ascent for g in (slopes, EOT(slopes), Smoothing(EOT(slopes), sigma=0.1))}
    assert by == {"differences"}


@pytest.mark.parametrize(
    "other", [FAB(), FGSM(), CarliniWagner(), Square(), Substitute(), Transfer(inner=PGD())]
)
def test_an_attack_that_does_not_climb_inside_the_ball_says_so(other):
    assert other.ascent == "none"
