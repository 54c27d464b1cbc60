"""In which order wrong classes are aimed at: against the closed form of a linear network, in three norms."""

import pytest
import torch
from torch import nn

from unmask.attacks import TargetedAPGD
from unmask.attacks.base import Cost
from unmask.attacks.batch import Batch
from unmask.attacks.target_classes import cost_of_nearest, likeliest, nearest
from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import Exact
from unmask.objectives import Targeted
from unmask.randomness import Streams
from unmask.threat import threat_model

PIXELS = 60
DUAL = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}


class Linear(nn.Module):
    def __init__(self, classes, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(seed)
        size = torch.rand(classes, 1, generator=g) * 3 + 0.1  # some classes are steep, some flat
        self.weight = nn.Parameter(torch.randn(classes, PIXELS, generator=g) * size)
        self.bias = nn.Parameter(torch.randn(classes, generator=g) * 20)

    def forward(self, x):
        return (x.flatten(1) - 0.5) @ self.weight.T + self.bias


def ordered(network, x, norm, epsilon=0.1):
    logits = network(x).detach()
    y = logits.argmax(1)
    batch = Batch.whole(x, y, Streams.seeded(0, torch.arange(len(x))), Targeted())
    threat = threat_model(norm, epsilon)
    return nearest(logits, batch, Classifier(network), threat, Exact()), y, logits


def images(count=6):
    return torch.rand(count, 1, 6, 10, generator=torch.Generator().manual_seed(3)) * 0.4 + 0.3


@pytest.mark.parametrize("norm", DUAL)
def test_of_a_linear_network_the_order_is_that_of_the_distances(norm):
    network, x = Linear(10), images()
    order, y, logits = ordered(network, x, norm)
    for n in range(len(x)):
        slope = network.weight - network.weight[y[n]]
        length = torch.linalg.vector_norm(slope, DUAL[norm], dim=1)
        distance = (logits[n, y[n]] - logits[n]) / length
        distance[y[n]] = torch.inf
        assert order[n].tolist() == distance.argsort().tolist()
        assert order[n].tolist() != likeliest(logits, y)[n].tolist()


def one_steep():
    """300 classes whose logits lie one apart and hardly move; the 123rd lies far behind and moves a lot."""
    network = Linear(300)
    with torch.no_grad():
        network.weight *= 0.01
        network.bias[:] = torch.linspace(0, 299, 300)
        network.weight[123] = 40 * torch.randn(PIXELS, generator=torch.Generator().manual_seed(9)).sign()
    return network.eval()


@pytest.mark.parametrize("norm", DUAL)
def test_of_many_classes_a_steep_one_far_behind_comes_first(norm):
    network, x = one_steep(), images()
    order, y, logits = ordered(network, x, norm)
    assert (likeliest(logits, y)[:, :100] != 123).all()
    assert (order[:, 0] == 123).all()
    assert (order.sort(1).values == torch.arange(300)).all()  # every class once
    assert (order[:, -1] == y).all()


def test_where_nothing_varies_the_order_is_the_likeliest():
    class Labels(Linear):
        def forward(self, x):
            return super().forward(x).detach().round() + 0 * x.sum((1, 2, 3))[:, None]

    network, x = Labels(7), images()
    order, y, logits = ordered(network, x, "linf", 1e-6)
    assert (order == likeliest(logits, y)).all()


def test_the_stated_cost_is_the_cost():
    for classes in (4, 10, 11, 50):
        network, x = Linear(classes), images(1)
        classifier = Classifier(network)
        y = network(x).argmax(1)
        batch = Batch.whole(x, y, Streams.seeded(0, torch.arange(1)), Targeted())
        nearest(network(x).detach(), batch, classifier, threat_model("linf", 0.1), Exact())
        stated = cost_of_nearest(classes)
        assert classifier.meter.forwards == stated.forwards + stated.estimates
        assert classifier.meter.backwards == stated.estimates


def test_one_run_towards_the_nearest_breaks_what_the_nine_likeliest_do_not():
    network, x = one_steep(), images(4)
    y = network(x).argmax(1)
    left = {}
    for name, attack in {
        "nine likeliest": TargetedAPGD(steps=10, targets=9, objective=Targeted()),
        "nearest": TargetedAPGD(steps=10, targets=1, order="nearest", objective=Targeted()),
    }.items():
        left[name] = int((network(attack(network, x, y, epsilon=0.1)).argmax(1) == y).sum())
    assert left == {"nine likeliest": 4, "nearest": 0}


def test_the_order_is_said_counted_and_checked():
    attack = TargetedAPGD(steps=10, targets=1, order="nearest")
    assert attack.describe() == "targeted APGD-10, 1 nearest class"
    assert attack.cost(10) == Cost(forwards=1, estimates=9 + 13)
    assert attack.cost(1000) == Cost(forwards=7, estimates=9 + 13)
    assert attack.cost(2) == Cost(forwards=1, estimates=13)  # one other class: nothing to order
    with pytest.raises(UnusableInput, match="choose likeliest or nearest"):
        TargetedAPGD(order="steepest")
