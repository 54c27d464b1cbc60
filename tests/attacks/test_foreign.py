"""Other people's attacks, in the manner of each toolbox; stand-ins where a toolbox is not installed."""

import warnings

import numpy as np
import pytest
import torch
from tests.attacks.conftest import linear_problem

from unmask.attacks import PGD
from unmask.attacks.foreign import Foreign, as_attack, makes_itself
from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.judge import fooled
from unmask.randomness import Streams
from unmask.threat import Linf


def signed(network, x, y, epsilon):
    x = x.clone().requires_grad_()
    torch.nn.functional.cross_entropy(network(x), y).backward()
    return x + epsilon * x.grad.sign()


def without_radius(network, x, y):
    return signed(network, x, y, 0.04)


class ArtLike:
    """ART's manner: bound to a network, NumPy in and out."""

    def __init__(self, estimator=None, eps=0.04):
        self.network, self.eps = estimator, eps

    def generate(self, x, y=None):
        assert isinstance(x, np.ndarray)
        return signed(self.network, torch.as_tensor(x), torch.as_tensor(y), self.eps).detach().numpy()


class TorchattacksLike:
    """torchattacks' manner: made of a network and a radius, called with images and labels."""

    def __init__(self, model, eps=8 / 255):
        self.model, self.eps = model, eps

    def __call__(self, inputs, labels=None, *args, **kwargs):
        return signed(self.model, inputs, labels, self.eps)


def of_the_network(network):
    return TorchattacksLike(network, eps=0.04)


def of_ours(network):
    return PGD()


WAYS = {
    "function": signed,
    "function without radius": without_radius,
    "class that needs a network": TorchattacksLike,
    "what makes one of a network": of_the_network,
    "what makes one of ours": of_ours,
}


@pytest.mark.parametrize("found", WAYS.values(), ids=WAYS)
def test_every_manner_reaches_the_optimum_of_a_linear_network_and_is_metered(found):
    problem = linear_problem("linf")
    classifier, threat = problem.classifier(), Linf(epsilon=1.03 * problem.distance)
    attack = as_attack(found, "theirs")
    x_adv = attack.run(classifier, problem.x, problem.y, threat, generator=torch.Generator())
    assert fooled(classifier(x_adv, generator=torch.Generator()), problem.y, threat).all()
    assert classifier.meter.forwards >= len(problem.x)
    assert x_adv.shape == problem.x.shape
    assert not x_adv.requires_grad


def test_one_that_is_bound_to_a_network_attacks_that_one():
    problem = linear_problem("linf")
    attack = as_attack(ArtLike(problem.network), "mine.py:art")
    assert attack.describe() == "mine.py:art"
    classifier = problem.classifier()
    x_adv = attack.run(classifier, problem.x, problem.y, Linf(epsilon=0.04), generator=torch.Generator())
    assert x_adv.dtype == problem.x.dtype
    assert (problem.network(x_adv).argmax(1) != problem.y).all()


def test_ours_stays_as_it_is_and_what_needs_nothing_makes_itself():
    ours = PGD()
    assert as_attack(ours, "ours") is ours
    assert makes_itself(PGD)
    assert makes_itself(lambda: PGD())
    assert not any(makes_itself(f) for f in (ours, signed, TorchattacksLike, ArtLike(), of_the_network))


@pytest.mark.parametrize(
    "found", [3, "text", torch.nn.Linear(2, 2), lambda a, b, c, d, e: None, lambda a, b: None]
)
def test_anything_else_is_refused_with_what_would_do(found):
    with pytest.raises(UnusableInput, match=r"mine.*torchattacks"):
        as_attack(found, "mine")


def test_a_random_network_is_attacked_repeatably():
    def shaky(x):
        return torch.stack([x.flatten(1).sum(1), torch.randn(len(x))], 1)

    x, y = torch.rand(4, 1, 2, 2), torch.zeros(4, dtype=torch.long)
    attack, seen = (
        as_attack(lambda network, x, y: x + 0.1 * network(x)[:, 1].reshape(-1, 1, 1, 1), "noise"),
        [],
    )
    for _ in range(2):
        streams = Streams.seeded(0, torch.arange(4))
        seen.append(attack.run(Classifier(shaky), x, y, Linf(epsilon=0.1), generator=streams))
    assert torch.equal(*seen)


TOOLBOXES = {
    "torchattacks": ("torchattacks", "PGD"),
    "foolbox": ("foolbox.attacks", "LinfPGD"),
    "art": ("art.attacks.evasion", "FastGradientMethod"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module", "name"), TOOLBOXES.values(), ids=TOOLBOXES)
def test_the_toolboxes_themselves_break_a_linear_network(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        room = pytest.importorskip(module, exc_type=ImportError)
    found = getattr(room, name)
    attack = as_attack(found() if makes_itself(found) else found, name)
    assert isinstance(attack, Foreign)
    problem = linear_problem("linf")
    classifier, threat = problem.classifier(), Linf(epsilon=1.2 * problem.distance)
    x_adv = attack.run(classifier, problem.x, problem.y, threat, generator=torch.Generator())
    assert fooled(classifier(x_adv, generator=torch.Generator()), problem.y, threat).all()
    assert threat.contains(threat.settle(x_adv, problem.x), problem.x).all()
