"""Layers on quantised tensors: found by holding them still, repaired as the same layers in floating point."""

import pytest
import torch
from tests.tracing.test_analyse import images, suspects
from torch import nn

from unmask.tracing.record.freeze import quantised_as
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten

pytestmark = pytest.mark.filterwarnings("ignore")
quantized = torch.ops.quantized


def weights(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) / 4


def packed(prepack, weight, *moves):
    stored = torch.quantize_per_tensor(weight, float(weight.abs().max()) / 127, 0, torch.qint8)
    return prepack(stored, weights(len(weight), seed=9), *moves)


class Static(nn.Module):
    """Quantised once in front: a convolution, a rectified layer, a sum of the layer with itself, a layer."""

    def __init__(self):
        super().__init__()
        self.plain = [weights(4, 1, 3, 3, seed=1), weights(16, 64, seed=2), weights(4, 16, seed=3)]
        self.seen = packed(quantized.conv2d_prepack, self.plain[0], [1, 1], [1, 1], [1, 1], 1)
        self.first = packed(quantized.linear_prepack, self.plain[1])
        self.last = packed(quantized.linear_prepack, self.plain[2])

    def forward(self, x):
        z = torch.quantize_per_tensor(x, 1 / 64, 0, torch.quint8)
        z = quantized.conv2d(z, self.seen, 0.05, 64).flatten(1)
        z = quantized.linear_relu(z, self.first, 0.05, 0)
        z = quantized.add(z, z, 0.1, 0)
        return quantized.linear(z, self.last, 0.1, 64).dequantize()

    def floats(self, x):
        z = nn.functional.conv2d(x, self.plain[0], weights(4, seed=9), padding=1).flatten(1)
        z = nn.functional.linear(z, self.plain[1], weights(16, seed=9)).relu()
        return nn.functional.linear(2 * z, self.plain[2], weights(4, seed=9))


class Products(Static):
    """The same with what else two tensors are combined by: a product, and a sum that is rectified."""

    def forward(self, x):
        z = torch.quantize_per_tensor(x, 1 / 64, 0, torch.quint8)
        z = quantized.conv2d(z, self.seen, 0.05, 64).flatten(1)
        z = quantized.linear_relu(z, self.first, 0.05, 0)
        z = quantized.add_relu(quantized.mul(z, z, 0.1, 0), z, 0.1, 0)
        return quantized.linear(z, self.last, 0.1, 64).dequantize()

    def floats(self, x):
        z = nn.functional.conv2d(x, self.plain[0], weights(4, seed=9), padding=1).flatten(1)
        z = nn.functional.linear(z, self.plain[1], weights(16, seed=9)).relu()
        return nn.functional.linear(z * z + z, self.plain[2], weights(4, seed=9))


class Functional(Static):
    """The same through the module that exported networks add with."""

    def __init__(self):
        super().__init__()
        self.sum = torch.ao.nn.quantized.QFunctional()
        self.sum.scale = 0.1

    def forward(self, x):
        z = torch.quantize_per_tensor(x, 1 / 64, 0, torch.quint8)
        z = quantized.conv2d(z, self.seen, 0.05, 64).flatten(1)
        z = quantized.linear_relu(z, self.first, 0.05, 0)
        return quantized.linear(self.sum.add(z, z), self.last, 0.1, 64).dequantize()


class Dynamic(nn.Module):
    def __init__(self):
        super().__init__()
        self.plain = weights(4, 16, seed=4)
        self.layer = packed(quantized.linear_prepack, self.plain)

    def forward(self, x):
        return quantized.linear_dynamic(4 * x.flatten(1).tanh(), self.layer)

    def floats(self, x):
        return nn.functional.linear(4 * x.flatten(1).tanh(), self.plain, weights(4, seed=9))


def slope(f, x, y):
    z = x.clone().requires_grad_()
    return torch.autograd.grad(f(z).gather(1, y[:, None]).sum(), z)[0]


@pytest.mark.parametrize(
    ("build", "named"),
    [(b, "quantize_per_tensor") for b in (Static, Products, Functional)] + [(Dynamic, "linear_dynamic")],
)
def test_the_slope_is_the_float_networks(build, named):
    network = build().eval()
    analysis = suspects(network)
    assert [s.operation for s in analysis.suspects] == [f"torch.{named}"]
    x = images(8)
    y = network(x).argmax(1)
    expected = slope(network.floats, x, y)
    for repair in propose(analysis):
        if repair.name.startswith("smooth"):
            repaired = Rewritten(network, repair.rewrite)
            assert torch.equal(repaired(x), network(x)), "the forward pass stays as it is"
            assert torch.cosine_similarity(slope(repaired, x, y).flatten(), expected.flatten(), 0) > 0.9


@pytest.mark.parametrize("channels", [False, True])
def test_numbers_go_back_into_a_quantised_tensor(channels):
    x = weights(3, 5, seed=5)
    if channels:
        scales, points = torch.tensor([0.1, 0.02, 0.05]), torch.tensor([0, 3, 0])
        stored = torch.quantize_per_channel(x, scales, points, 0, torch.qint8)
    else:
        stored = torch.quantize_per_tensor(x, 0.05, 3, torch.qint8)
    again = quantised_as(stored.clone(), stored.dequantize())
    assert torch.equal(again.int_repr(), stored.int_repr())
