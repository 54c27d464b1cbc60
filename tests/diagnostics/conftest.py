"""Honest digits networks, the threat they are examined under, and small defects to put around them."""

from collections.abc import Callable

import pytest
import torch
from tests.fixtures.digits_networks import trained
from tests.fixtures.digits_split import digits_split
from torch import Tensor, nn

from unmask.classifier import Classifier
from unmask.diagnostics import Diagnostic, Reading
from unmask.randomness import Streams
from unmask.threat import Linf

HONEST = ("plain_cnn", "plain_mlp", "adversarial_cnn", "certified_cnn")


class Quantised(nn.Module):
    """Four grey levels: the gradient is zero everywhere."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base

    def forward(self, x: Tensor) -> Tensor:
        return self.base(torch.round(3 * x) / 3)


class Noisy(nn.Module):
    """Gaussian noise on every pixel, fresh in each pass."""

    def __init__(self, base: nn.Module, size: float = 0.2):
        super().__init__()
        self.base = base
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x + self.size * torch.randn_like(x))


class Scaled(nn.Module):
    """Logits so large that the softmax saturates in float32."""

    def __init__(self, base: nn.Module, scale: float = 1e4):
        super().__init__()
        self.base = base
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.base(x)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, sign: Tensor) -> Tensor:
        ctx.save_for_backward(sign)
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor):
        return grad * ctx.saved_tensors[0], None


class LiesOffTheGrid(nn.Module):
    """The gradient is right at unperturbed digits (multiples of 1/16) and reversed everywhere else."""

    def __init__(self, base: nn.Module, on_the_grid: float = 1.0):
        super().__init__()
        self.base = base
        self.on_the_grid = on_the_grid

    def forward(self, x: Tensor) -> Tensor:
        clean = (16 * x == (16 * x).round()).flatten(1).all(1)
        sign = torch.where(clean, self.on_the_grid, -1.0).reshape(-1, *[1] * (x.ndim - 1))
        return self.base(_Reversed.apply(x, sign))


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """32 held-out digits `[32, 1, 8, 8]` and their labels."""
    test = digits_split()[1]
    return test.x[:32], test.y[:32]


@pytest.fixture
def streams() -> Streams:
    return Streams.seeded(0, torch.arange(32))


@pytest.fixture(scope="session")
def base() -> nn.Module:
    return trained("plain_cnn")


@pytest.fixture(params=HONEST)
def honest(request) -> nn.Module:
    return trained(request.param)


@pytest.fixture
def threat() -> Linf:
    return Linf(epsilon=0.1)


@pytest.fixture
def examine(digits, streams, threat) -> Callable[..., Reading]:
    """Examines a network on the digits; networks are promised deterministic unless told otherwise."""

    def run(diagnostic: Diagnostic, network: nn.Module, *, deterministic: bool = True, **fields) -> Reading:
        classifier = Classifier(network, deterministic=deterministic)
        x, y = digits
        before, flags = x.clone(), [m.training for m in network.modules()]
        reading = diagnostic.examine(classifier, x, y, fields.get("threat", threat), generator=streams)
        assert torch.equal(x, before)
        assert flags == [m.training for m in network.modules()]
        assert all(p.grad is None for p in network.parameters())
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())
        return reading

    return run
