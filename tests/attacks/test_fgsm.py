"""Where the one step starts."""

import pytest
import torch
from tests.attacks.curved import curved, project, value_and_slope
from tests.attacks.test_apgd import margin_loss_of
from torch import nn

from unmask.attacks import FGSM
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.objectives import margin_loss
from unmask.threat import L2, Linf, threat_model

STILL = {"rel_step_size": 0.0}


def start(attack, threat, x):
    network = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 3))
    y = torch.zeros(len(x)).long()
    classifier = Classifier(network.eval())
    return attack.run(classifier, x, y, threat, generator=torch.Generator().manual_seed(0)) - x


@pytest.mark.parametrize("threat", [Linf(epsilon=0.2), L2(epsilon=0.2)])
def test_an_edge_start_is_as_far_away_as_can_be(threat):
    x = torch.full((50, 1, 6, 6), 0.5)  # the box never binds
    at_edge = start(FGSM(edge_start=True, **STILL), threat, x)
    assert torch.allclose(threat.distance(x + at_edge, x).float(), torch.tensor(0.2), atol=1e-6)
    assert 0.45 < float((at_edge > 0).float().mean()) < 0.55
    inside = threat.distance(x + start(FGSM(random_start=True, **STILL), threat, x), x)
    assert 0 < float(inside.min()) < 0.2 - 1e-5
    assert not start(FGSM(**STILL), threat, x).any()


def test_under_linf_the_edge_start_is_a_corner():
    x = torch.full((50, 1, 6, 6), 0.5)
    delta = start(FGSM(edge_start=True, **STILL), Linf(epsilon=0.2), x)
    assert torch.allclose(delta.abs(), torch.tensor(0.2), atol=1e-6)
    assert len({tuple(d.flatten().sign().tolist()) for d in delta}) == 50


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.2), ("l2", 0.8), ("l1", 1.5)])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_the_step_is_the_steepest_from_where_it_starts(norm, epsilon, goal):
    net = curved(seed=2)
    y = net.y if goal == "untargeted" else (net.y + 1) % 4
    threat = threat_model(norm, epsilon, goal=goal)
    for options in (
        {},
        {"random_start": True, "rel_step_size": 0.7},
        {"edge_start": True, "rel_step_size": 2.0},
    ):
        net.asked.clear()
        attack = FGSM(objective=margin_loss, **options)
        found = attack.run(net.classifier(), net.x, y, threat, generator=net.streams())
        (start,) = net.asked
        if options:
            random = threat.random_start(net.x, generator=net.streams())
        for n in range(len(net.x)):
            x = net.x[n]
            if not options:
                torch.testing.assert_close(start[n], x, rtol=0, atol=0)
            elif "random_start" in options:
                torch.testing.assert_close(start[n], random[n], rtol=0, atol=1e-12)
            else:
                far = steepest(random[n] - x, norm)
                torch.testing.assert_close(
                    start[n], project(x + epsilon * far, x, norm, epsilon), rtol=0, atol=1e-9
                )
            sign = 1 if goal == "untargeted" else -1
            _, slope = value_and_slope(margin_loss_of(net, int(y[n])), start[n])
            step = options.get("rel_step_size", 1.0) * epsilon
            end = project(start[n] + step * steepest(sign * slope, norm), x, norm, epsilon)
            torch.testing.assert_close(found[n], end, rtol=0, atol=1e-6)


def steepest(slope, norm):
    if norm == "linf":
        return slope.sign()
    if norm == "l2":
        return slope / slope.norm()
    return torch.where(slope.abs() == slope.abs().max(), slope.sign(), 0.0)


def test_it_costs_one_estimate_and_says_who_cannot_count_pixels():
    assert FGSM().cost(4).estimates == 1
    net = curved()
    with pytest.raises(Unsupported, match=r"^`FGSM` "):
        FGSM().run(net.classifier(), net.x, net.y, threat_model("l0", 1), generator=net.streams())
