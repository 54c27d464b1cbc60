"""Where the one step starts."""

import pytest
import torch
from torch import nn

from unmask.attacks import FGSM
from unmask.classifier import Classifier
from unmask.threat import L2, Linf

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
