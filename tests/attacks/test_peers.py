"""Our attacks beside other people's at equal budgets, on a network trained on digits."""

import warnings

import pytest
import torch

from unmask.attacks import APGD, FAB, CarliniWagner, Square
from unmask.classifier import Classifier
from unmask.objectives import cross_entropy, dlr
from unmask.threat import L2, Linf, threat_model

EPSILON = {"linf": 0.12, "l2": 0.6}


def left(network, x_adv, y) -> int:
    return int((network(x_adv).argmax(1) == y).sum())


def run(attack, digits, threat):
    classifier = Classifier(digits.network, deterministic=True)
    return attack.run(classifier, digits.x, digits.y, threat, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def torchattacks():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torchattacks", exc_type=ImportError)


@pytest.fixture
def foolbox():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("foolbox", exc_type=ImportError)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "name"), [("linf", "Linf"), ("l2", "L2")])
@pytest.mark.parametrize("loss", ["ce", "dlr"])
def test_apgd_leaves_no_more_than_torchattacks(digits, torchattacks, norm, name, loss):
    # Three restarts on both sides: with one, seeds alone move either count by two.
    theirs = torchattacks.APGD(
        digits.network, norm=name, eps=EPSILON[norm], steps=50, n_restarts=3, loss=loss, seed=0
    )
    attack = APGD(steps=50, restarts=3, objective=dlr if loss == "dlr" else cross_entropy)
    ours = left(digits.network, run(attack, digits, threat_model(norm, EPSILON[norm])), digits.y)
    assert 0 < ours <= left(digits.network, theirs(digits.x, digits.y), digits.y) + 1
    assert ours < len(digits.y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("norm", "name"), [("linf", "Linf"), ("l2", "L2")])
def test_square_leaves_no_more_than_torchattacks(digits, torchattacks, norm, name):
    theirs = torchattacks.Square(
        digits.network, norm=name, eps=EPSILON[norm], n_queries=500, loss="margin", seed=0
    )
    threat = threat_model(norm, EPSILON[norm])
    ours = left(digits.network, run(Square(queries=500), digits, threat), digits.y)
    assert 0 < ours <= left(digits.network, theirs(digits.x, digits.y), digits.y) + 1


@pytest.mark.filterwarnings("ignore")
def test_fab_is_as_near_as_torchattacks(digits, torchattacks):
    theirs = torchattacks.FAB(digits.network, norm="Linf", eps=1.0, steps=30, n_restarts=1, n_classes=10)
    threat = Linf(epsilon=1.0)
    ours = threat.distance(run(FAB(steps=30, early_stop=False), digits, threat), digits.x)
    assert ours.median() <= 1.02 * threat.distance(theirs(digits.x, digits.y), digits.x).median()


@pytest.mark.filterwarnings("ignore")
def test_carlini_wagner_is_as_near_as_foolbox(digits, foolbox):
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        binary_search_steps=6, steps=200, stepsize=0.05, initial_const=1.0, abort_early=False
    )
    model = foolbox.PyTorchModel(digits.network, bounds=(0, 1), device="cpu")
    x, y = digits.x[:8], digits.y[:8]
    nearest = theirs(model, x, y, epsilons=None)[0]
    threat = L2(epsilon=8.0)
    classifier = Classifier(digits.network, deterministic=True)
    attack = CarliniWagner(steps=200, searches=6, early_stop=False)
    ours = attack.run(classifier, x, y, threat, generator=torch.Generator())
    assert left(digits.network, ours, y) == 0
    assert threat.distance(ours, x).median() <= 1.03 * threat.distance(nearest, x).median()
