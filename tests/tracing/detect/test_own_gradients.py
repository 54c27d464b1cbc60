"""A gradient that a network takes of its own and goes on with as a constant: named at its line, unless it is whole."""

import pytest
import torch
from tests.tracing.networks import linear
from torch import nn

from unmask.classifier import Classifier
from unmask.threat import Linf
from unmask.tracing.analyse import analyse


class Descends(nn.Module):
    """The answer goes down an energy of itself and the image; the gradient of the energy is taken by `slope`."""

    def __init__(self, slope):
        super().__init__()
        self.slope, self.read = slope, linear()

    def energy(self, x, y):
        return ((y - self.read(x)) ** 2).sum() / 2

    def forward(self, x):
        x = x.flatten(1)
        y = 0.01 * self.read(x)
        for _ in range(3):
            with torch.enable_grad():
                y = y - 0.5 * self.slope(
                    self.energy, x, y if y.requires_grad else y.detach().requires_grad_()
                )
        return y


def kept(energy, x, y):
    return torch.autograd.grad(energy(x, y), y, create_graph=True)[0]


def constant(energy, x, y):
    return torch.autograd.grad(energy(x, y), y)[0]


def spelled_out(energy, x, y):
    (slope,) = torch.autograd.grad(outputs=energy(x, y), inputs=[y], create_graph=False, retain_graph=True)
    return slope


def of_itself(energy, x, y):
    """Of nothing that depends on the image: a penalty of the answer alone, which is detached."""
    free = y.detach().requires_grad_()
    return torch.autograd.grad((free**2).sum(), free)[0] * 0 + 0.5 * y


def found(slope):
    x = 0.3 + 0.4 * torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network = Descends(slope)
    with torch.no_grad():
        y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    analysis = analyse(Classifier(network), x, y, Linf(epsilon=0.05), seed=0, generator=generator)
    return [s for s in analysis.suspects if s.symptom.name == "cut" and s.site.file == __file__]


@pytest.mark.parametrize(("slope", "ahead"), [(constant, 1), (spelled_out, 1)])
def test_a_constant_is_named_where_it_is_taken(slope, ahead):
    (one,) = found(slope)
    assert one.site.line == slope.__code__.co_firstlineno + ahead
    assert one.operation == "torch.autograd.grad"
    assert one.share > 0.5


@pytest.mark.parametrize("slope", [kept, of_itself])
def test_a_gradient_with_its_graph_and_one_of_something_else_are_not(slope):
    assert found(slope) == []
