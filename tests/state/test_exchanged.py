"""A network called with other numbers is what it was afterwards, under whatever names its parts are registered."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from unmask.classifier import Classifier
from unmask.defenses import WeightNoise
from unmask.diagnostics.readout import ReadOut, Replanted
from unmask.gradients import Exact, Float64
from unmask.objectives import margin_loss
from unmask.state.exchanged import call_with


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


class TwoNames(nn.Module):
    """Its last layer is registered beside the network, as well."""

    def __init__(self):
        super().__init__()
        self.body = layers()
        self.last = self.body[4]

    def forward(self, x):
        return self.body(x)


class Listed(TwoNames):
    """All layers in a list, as well."""

    def __init__(self):
        super().__init__()
        self.all = nn.ModuleList(self.body)


class Tied(nn.Module):
    """Two layers, one weight."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
        self.body[3].weight = self.body[1].weight

    def forward(self, x):
        return self.body(x)[:, :4]


def planted():
    inner = layers()
    question = ReadOut(torch.ones(6), torch.zeros(6), 0.1, 1.0, 4)
    return Replanted(inner, inner[4], question)


NETWORKS = {"two names": TwoNames, "listed": Listed, "tied": Tied, "planted": planted, "plain": layers}


@pytest.mark.parametrize("name", NETWORKS)
def test_its_own_numbers_come_back(name):
    network = NETWORKS[name]().eval()
    own = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    before = {n: t.clone() for n, t in own.items()}
    x = torch.rand(3, 1, 4, 4)
    with torch.no_grad():
        truth = network(x)
        double = {n: t.double() if t.is_floating_point() else t for n, t in own.items()}
        found = call_with(network, double, x.double())
        zeros = call_with(network, {n: t * 0 for n, t in own.items() if "bias" not in n}, x)
    torch.testing.assert_close(found.float(), truth)
    assert not torch.equal(zeros, truth)
    after = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    assert all(after[n] is t and torch.equal(t, before[n]) for n, t in own.items())
    with torch.no_grad():
        assert torch.equal(network(x), truth)


def test_torchs_own_call_would_have_changed_it():
    """If this fails, `call_with` may go."""
    network = TwoNames().eval()
    own = (*network.named_parameters(), *network.named_buffers())
    double = {n: t.detach().double() for n, t in own if t.is_floating_point()}
    functional_call(network, double, (torch.rand(1, 1, 4, 4).double(),))
    assert network.last.weight.dtype == torch.float64


@pytest.mark.parametrize("name", NETWORKS)
def test_double_precision_leaves_the_network_alone(name):
    network = NETWORKS[name]().eval()
    x, y = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 0])
    classifier, generator = Classifier(network, deterministic=True), torch.Generator().manual_seed(0)
    found, truth = (
        e.estimate(classifier, margin_loss, x, y, generator=generator) for e in (Float64(), Exact())
    )
    torch.testing.assert_close(found.grad, truth.grad, rtol=1e-4, atol=1e-6)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["two names", "listed", "tied"])
def test_noise_on_the_weights_does_not_pile_up(name):
    network = NETWORKS[name]().eval()
    before = {n: p.clone() for n, p in network.named_parameters()}
    noisy = WeightNoise(strength=0.3).wrap(Classifier(network))
    x, generator = torch.rand(3, 1, 4, 4), torch.Generator().manual_seed(0)
    for _ in range(3):
        noisy(x, generator=generator)
    assert all(torch.equal(p, before[n]) for n, p in network.named_parameters())
