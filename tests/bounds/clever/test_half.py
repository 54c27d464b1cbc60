"""Backward passes in bfloat16 against autograd's."""

import pytest
import torch
from tests.bounds.networks import BUILDERS, random_network
from torch import nn

from unmask.bounds.clever.half import HalfTape
from unmask.zoo import Normalize, ResNet20


def images(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def built(build, seed=0):
    """A network with random parameters, batch norm's statistics among them, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.normal_(module.running_mean, std=0.1)
                nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def both(network, x):
    """The gradient of a weighted sum of the logits, from autograd and from the tape (None where it has none)."""
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    slopes = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    (exact,) = torch.autograd.grad((slopes * logits).sum(), leaf)
    tape = HalfTape()
    with torch.no_grad(), tape:
        logits = network(tape.start(x))
    assert torch.allclose(logits, network(x).detach(), atol=1e-5)
    if not tape.knows(logits):
        return exact, None
    half = tape.gradient(logits, slopes)
    assert half.dtype == torch.bfloat16
    assert half.shape == exact.shape
    assert torch.equal(half, tape.gradient(logits, slopes))
    return exact, half.float()


class Residual(nn.Module):
    """Convolutions with and without stride, groups and a sum, and linear layers, in the given precision."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.middle = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.last = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(16 * 9, 32), nn.ReLU(), nn.Linear(32, 4))
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.to(dtype)
        self.dtype = dtype

    def forward(self, x):
        x = self.first(x.to(self.dtype)).relu()
        x = x - self.middle(x).relu()
        x += self.scale * x.tanh()
        return self.head(self.last(x).relu())


def pooled():
    return nn.Sequential(
        Normalize([0.4, 0.5], [0.2, 0.3]),
        nn.Conv2d(2, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 1),
        nn.Conv2d(6, 8, 2, dilation=2, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(8, 40, 1),
        nn.ReLU(),
        nn.Conv2d(40, 6, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4, bias=False),
    )


@pytest.mark.parametrize("build", [Residual, pooled])
def test_layers(build):
    exact, half = both(built(build), images(64, 2, 6, 6))
    error = torch.linalg.vector_norm((half - exact).flatten(1), dim=1)
    assert (error < 0.02 * torch.linalg.vector_norm(exact.flatten(1), dim=1)).all()
    assert error.min() > 0


JOINED = ("joined_relu", "joined_tanh")  # the tape has no rule for concatenation


@pytest.mark.parametrize("kind", JOINED)
def test_what_the_tape_does_not_know_it_declines(kind):
    _, half = both(random_network(kind, 0), images(16, 2, 6, 6))
    assert half is None


@pytest.mark.parametrize("kind", [kind for kind in BUILDERS if kind not in JOINED])
def test_random_networks(kind):
    exact, half = both(random_network(kind, 0), images(16, 2, 6, 6))
    assert (half - exact).norm() < 0.02 * exact.norm()


def test_shortcuts_that_subsample_and_pad():
    exact, half = both(built(lambda: ResNet20(blocks=1)), images(4, 3, 16, 16))
    assert (half - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "padding", "size"),
    [
        (1, (4, 4), 2, 1, (28, 28)),
        (3, (7, 5), 2, 3, (17, 12)),
        (2, (5, 3), 3, (2, 0), (11, 13)),
        (3, (2, 2), 4, 0, (10, 9)),
        (2, (1, 1), 2, 0, (7, 7)),
        (3, (3, 3), 2, 2, (8, 8)),
        (5, (3, 5), 1, (1, 0), (9, 8)),
        (4, (3, 3), 1, 4, (6, 6)),
        (1, (5, 5), 1, 0, (5, 5)),
        (33, (3, 3), 2, 1, (9, 9)),
    ],
)
def test_convolutions(channels, kernel, stride, padding, size):
    """Most go back through a convolution of phases, which is ours."""
    layer = built(lambda: nn.Conv2d(channels, 6, kernel, stride, padding))
    network = nn.Sequential(layer, nn.Flatten())
    exact, half = both(network, images(3, channels, *size))
    assert (half - exact).abs().max() < 0.02 * exact.abs().max()


def test_a_transposed_convolution():
    exact, half = both(
        built(lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 3, 2), nn.Flatten())), images(2, 3, 5, 5)
    )
    assert (half - exact).norm() < 0.01 * exact.norm()


class Function(nn.Module):
    """A function between two layers."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.head = nn.Linear(72, 3)

    def forward(self, x):
        return self.head(self.function(x.flatten(1)))


@pytest.mark.parametrize(
    "function",
    [
        nn.functional.gelu,
        lambda x: torch.cat([x[:, :30], x[:, 30:]], 1),
        lambda x: x * x,
        lambda x: x[:, :1] * torch.ones(72),
        lambda x: 1 / (1 + x),
        lambda x: x / (1 + x),
        lambda x: torch.add(x, x, alpha=2),
        lambda x: x + x.mean(1, keepdim=True),
        lambda x: x.double().float(),
        lambda x: torch.round(x),
    ],
)
def test_an_operation_without_a_rule(function):
    assert both(built(lambda: Function(function)), images(4, 2, 6, 6))[1] is None


def test_other_precisions():
    assert both(built(lambda: Residual(torch.float64)), images(4, 2, 6, 6))[1] is None
    double = built(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 3))).double()
    assert both(double, images(4, 2, 6, 6).double())[1] is None


def test_changed_parameters_are_made_ready_again():
    network, x = built(Residual), images(4, 2, 6, 6)
    tape, slopes = HalfTape(), torch.tensor([-1.0, 1.0, 0.0, 0.0]).expand(4, 4)
    found = []
    for _ in range(2):
        with torch.no_grad(), tape:
            logits = network(tape.start(x))
        found.append(tape.gradient(logits, slopes))
        with torch.no_grad():
            network.head[3].weight.mul_(2)
    assert torch.equal(found[1], 2 * found[0])
