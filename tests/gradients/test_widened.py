"""The float32 copy of a network that computes in sixteen bits."""

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.gradients import Exact, Widened
from unmask.objectives import cross_entropy


def rng():
    return torch.Generator().manual_seed(0)


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))


class ByMethod(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = layers().half()

    def forward(self, x):
        return self.net(x.half()).float()


class ByType(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = layers().bfloat16()

    def forward(self, x):
        return self.net(x.to(dtype=torch.bfloat16)).to(torch.float32)


class ByAutocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = layers()

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.net(x).float()


class ByBuffer(nn.Module):
    """Half weights that are no parameters of a module."""

    def __init__(self):
        super().__init__()
        net = layers().half()
        for n, p in enumerate(net.parameters()):
            self.register_buffer(f"w{n}", p.detach())

    def forward(self, x):
        x = x.type(torch.float16).flatten(1)
        return ((x @ self.w0.T + self.w1).relu() @ self.w2.T + self.w3).float()


@pytest.mark.parametrize("kind", [ByMethod, ByType, ByAutocast, ByBuffer])
def test_slopes_of_float32_and_values_of_sixteen_bits(kind):
    network, truth = kind().eval(), layers()
    if kind is not ByAutocast:  # the copy has the rounded weights
        narrow = torch.bfloat16 if kind is ByType else torch.float16
        truth = truth.to(narrow).float()
    x, y = torch.rand(5, 1, 4, 4, generator=rng()), torch.tensor([0, 1, 2, 3, 0])
    found = Widened().estimate(Classifier(network, deterministic=True), cross_entropy, x, y, generator=rng())
    exact = Exact().estimate(Classifier(truth, deterministic=True), cross_entropy, x, y, generator=rng())
    assert torch.equal(found.outputs.logits, network(x).detach())
    assert torch.allclose(found.grad, exact.grad, rtol=1e-4, atol=1e-7)
    assert torch.autocast.__enter__.__qualname__ == "autocast.__enter__"


def test_a_gradient_that_underflows_comes_back():
    network = ByMethod()
    with torch.no_grad():
        network.net[3].bias.copy_(torch.tensor([20.0, 0, 0, 0]))
    classifier, y = Classifier(network, deterministic=True), torch.zeros(3, dtype=torch.long)
    x = torch.rand(3, 1, 4, 4, generator=rng())
    assert not Exact().estimate(classifier, cross_entropy, x, y, generator=rng()).grad.any()
    assert (Widened().estimate(classifier, cross_entropy, x, y, generator=rng()).grad != 0).any()


def test_needs_a_module():
    with pytest.raises(Unsupported, match=r"nn\.Module"):
        Widened().estimate(
            Classifier(lambda x: x.half()),
            cross_entropy,
            torch.rand(2, 4),
            torch.tensor([0, 1]),
            generator=rng(),
        )
