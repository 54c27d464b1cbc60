"""Small networks that lose their gradient in one known line each, and honest ones that lose none."""

import copy
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn


def linear(inputs=16, classes=4, seed=0):
    """A fixed linear layer; the same for every network, so that gradients can be compared."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(inputs, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, inputs, generator=generator))
        layer.bias.zero_()
    return layer.requires_grad_(False)


class Wrapped(nn.Module):
    """Flattens, applies `step` to the pixels, then the linear layer."""

    def __init__(self, step, inputs=16):
        super().__init__()
        self.step = step
        self.read_out = linear(inputs)

    def forward(self, x):
        return self.read_out(self.step(x.flatten(1)))


class Zeros(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, grad):
        return grad * 0


class Flipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2.0

    @staticmethod
    def backward(ctx, grad):
        return -grad


class Forwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.round(x * 10) / 10


captured = Zeros.apply

POINTS = torch.rand(60, 16, generator=torch.Generator().manual_seed(5))
LABELS = (POINTS.view(-1, 4, 4).sum(2).argmax(1)).long()


def in_place_round(x):
    y = x * 10
    y.round_()
    return y / 10


def masked_assignment(x):
    y = x.clone()
    y[y < 0.5] = 0.25
    return y


def one_hot_bins(x):
    return F.one_hot((x * 4).long().clamp(0, 3), 4).float().flatten(1)


def thermometer(x):
    edges = torch.tensor([0.2, 0.4, 0.6, 0.8])
    return (x[..., None] > edges).float().flatten(1)


def palette(x):
    colours = torch.tensor([0.0, 0.3, 0.6, 1.0])
    index = (x[..., None] - colours).abs().argmin(-1)
    return colours[index]


def through_numpy(x):
    array = x.detach().numpy()
    return torch.from_numpy(np.sqrt(np.abs(array)))


def through_constructor(x):
    array = x.detach().numpy()
    return torch.FloatTensor(array * 0.9)


def without_grad(x):
    with torch.no_grad():
        return x * 0.9 + 0.05


def in_inference_mode(x):
    with torch.inference_mode():
        y = x * 0.9
    return y.clone()


def winners(x):
    least = x.topk(4, dim=1).values[:, -1:]
    return x * (x >= least)


def spectrum(x):
    s = torch.fft.rfft(x)
    return torch.fft.irfft(torch.polar((s.abs() * 5).round() / 5, s.angle()), n=16)


def sparse(x):
    kept = (x.detach() * (x > 0.1)).to_sparse()
    return kept.to_dense()


def number_by_number(x):
    y = x.detach().clone()
    y.apply_(lambda v: round(v * 10) / 10)
    return y


def hooked(x):
    y = x * 1.0
    if y.requires_grad:
        y.register_hook(torch.zeros_like)
    return y


def in_a_thread(x):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: torch.from_numpy(np.sqrt(x.detach().numpy()))).result()


def each(x):
    return torch.vmap(lambda row: (row * 10).round() / 10)(x)


def watched(x):
    y = x * 1.0
    if y.requires_grad:
        y.register_hook(lambda grad: None)
    return y


def own_copy(x):
    y = copy.deepcopy(x.detach())
    y.mul_(0.9)
    return y


def ranks(x):
    return x.argsort(1).argsort(1).float().view_as(x) / 16


def filled_twice(x):
    dark = x < 0.5
    return x.masked_fill(dark, 0.0).masked_fill(~dark, 1.0)


def put_together(x):
    y = x.new_empty(x.shape)
    y[:, ::2] = (x[:, ::2] * 10).round() / 10
    y[:, 1::2] = x[:, 1::2].floor()
    return y


def interleaved(x):
    y = torch.zeros_like(x)
    y[:, ::2] = x[:, 1::2]
    y[:, 1::2] = x[:, ::2].square()
    return y.reshape_as(x)


def neighbours(x):
    nearest = torch.cdist(x, POINTS).topk(5, largest=False).indices
    votes = F.one_hot(LABELS[nearest], 4)
    return votes.sum(1).float()


def elected(x):
    votes = LABELS[torch.cdist(x, POINTS).argsort(1)[:, :9]]
    return torch.stack([torch.bincount(v, minlength=4) for v in votes]).float()


def purified(x):
    z = nn.Parameter(x.detach().clone())
    optimiser = torch.optim.SGD([z], lr=0.05)
    with torch.enable_grad():
        for _ in range(3):
            optimiser.zero_grad()
            (z.diff(dim=1).square().sum() + (z - x.detach()).square().sum()).backward()
            optimiser.step()
    return z.detach()


def quiet(x):
    scale = nn.Hardtanh(-2, 2)
    scale.register_full_backward_hook(lambda module, before, after: (before[0] * 0,))
    return scale(x)


GENERATOR = np.random.default_rng()


def by_its_own_generator(x):
    scale = 1 + 0.1 * GENERATOR.normal()
    return x * scale


def by_entropy(x):
    seen = len(x)
    raw = os.urandom(16)
    return x + torch.tensor(list(raw)) / 2550 + 0 * seen


def filled(x):
    noise = torch.empty(x.shape)
    noise.normal_()
    return x + 0.1 * noise


# name -> (step, symptom, text in the guilty line, inputs of the read-out)
LOSING = {
    "round": (lambda x: torch.round(x * 10) / 10, {"zero"}, "torch.round(x * 10)", 16),
    "floor method": (lambda x: (x * 10).floor() / 10, {"zero"}, "(x * 10).floor()", 16),
    "floor division": (lambda x: x // 0.1 * 0.1, {"zero"}, "x // 0.1", 16),
    "ceil": (lambda x: torch.ceil(x * 10) / 10, {"zero"}, "torch.ceil(x * 10)", 16),
    "sign": (lambda x: torch.sign(x - 0.5), {"zero"}, "torch.sign(x - 0.5)", 16),
    "where": (lambda x: torch.where(x > 0.5, 1.0, 0.0), {"discrete"}, "torch.where(x > 0.5", 16),
    "in-place round": (in_place_round, {"zero"}, "y.round_()", 16),
    "masked assignment": (masked_assignment, {"discrete"}, "y[y < 0.5] = 0.25", 16),
    "one-hot bins": (one_hot_bins, {"discrete"}, "F.one_hot((x * 4).long()", 64),
    "thermometer": (thermometer, {"discrete"}, "(x[..., None] > edges)", 64),
    "palette": (palette, {"discrete"}, ".abs().argmin(-1)", 16),
    "winners": (winners, {"discrete"}, "x * (x >= least)", 16),
    "numpy": (through_numpy, {"cut"}, "x.detach().numpy()", 16),
    "constructor": (through_constructor, {"cut"}, "x.detach().numpy()", 16),
    "no_grad": (without_grad, {"cut"}, "with torch.no_grad():", 16),
    "inference_mode": (in_inference_mode, {"cut"}, "with torch.inference_mode():", 16),
    "function, zeros": (lambda x: Zeros.apply(x), {"zero"}, "lambda x: Zeros.apply(x)", 16),
    "function, captured": (lambda x: captured(x), {"zero"}, "lambda x: captured(x)", 16),
    "function, flipped": (lambda x: Flipped.apply(x), {"wrong"}, "lambda x: Flipped.apply(x)", 16),
    "data": (lambda x: x.data * 1.0, {"cut"}, "x.data * 1.0", 16),
    "byte": (lambda x: (x * 255).byte().float() / 255, {"discrete"}, "(x * 255).byte()", 16),
    "spectrum": (spectrum, {"zero"}, "(s.abs() * 5).round()", 16),
    "sparse": (sparse, {"cut"}, "(x.detach() * (x > 0.1))", 16),
    "remainder": (lambda x: x - x % 0.1, {"wrong"}, "x - x % 0.1", 16),
    "sawtooth": (lambda x: x - 0.01 * ((x * 200) % 1), {"wrong"}, "((x * 200) % 1)", 16),
    "deep copy": (own_copy, {"cut"}, "copy.deepcopy(x.detach())", 16),
    "ranks": (ranks, {"discrete"}, "x.argsort(1)", 16),
    "filled twice": (filled_twice, {"discrete"}, "dark = x < 0.5", 16),
    "put together": (put_together, {"zero"}, "(x[:, ::2] * 10).round()", 16),
    "neighbours": (neighbours, {"discrete"}, ".topk(5, largest=False)", 4),
    "elected": (elected, {"discrete"}, ".argsort(1)[:, :9]", 4),
    "purified": (purified, {"cut"}, "return z.detach()", 16),
    "function, forward alone": (lambda x: Forwards.apply(x), {"zero"}, "lambda x: Forwards.apply(x)", 16),
    "apply": (number_by_number, {"zero"}, "y.apply_(", 16),
    "tensor hook": (hooked, {"wrong"}, "y.register_hook(", 16),
    "module hook": (quiet, {"wrong"}, "scale.register_full_backward_hook(", 16),
    "saturated softmax": (
        lambda x: 10 * torch.softmax(1e4 * x, 1),
        {"saturated"},
        "torch.softmax(1e4 * x",
        16,
    ),
    "difference of ReLUs": (
        lambda x: F.relu(99 * x - 49) - F.relu(99 * x - 50),
        {"saturated"},
        "F.relu(99 * x - 49) -",
        16,
    ),
    "silu by its argument": (
        lambda x: F.silu(400 * x - 200) / (400 * x - 200),
        {"saturated"},
        "F.silu(400 * x - 200) /",
        16,
    ),
    "gate": (
        lambda x: F.glu(torch.cat([torch.ones_like(x), 400 * x - 200], 1), 1),
        {"saturated"},
        "F.glu(torch.cat(",
        16,
    ),
    "thread": (in_a_thread, {"cut"}, "return pool.submit(", 16),
    "round in a view": (
        lambda x: (x * 10).reshape(len(x), 4, 4).transpose(1, 2).round_().div_(10).flatten(1),
        {"zero"},
        ".round_()",
        16,
    ),
    "vmap": (each, {"zero"}, "return torch.vmap(", 16),
    "ripple": (lambda x: torch.sin(2e3 * x), {"wrong"}, "torch.sin(2e3 * x)", 16),
}

HONEST = {
    "relu": F.relu,
    "relu as a product": lambda x: (x - 0.5) * (x > 0.5),
    "leaky relu by where": lambda x: torch.where(x > 0.5, x - 0.5, 0.1 * (x - 0.5)),
    "sigmoid": lambda x: torch.sigmoid(4 * x - 2),
    "clamp": lambda x: x.clamp(0, 1),
    "sorted": lambda x: x.sort(1).values,
    "top of pairs": lambda x: x.reshape(len(x), 8, 2).max(-1).values.repeat(1, 2),
    "filter": lambda x: torch.fft.irfft(0.9 * torch.fft.rfft(x), n=16),
    "square": lambda x: (x - 0.2).clamp_min(0).square(),
    "one period": lambda x: x % 1.0,
    "written into a view": lambda x: (
        (x * 1.0).reshape(len(x), 4, 4).transpose(1, 2).mul_(2).clamp_(0, 2).flatten(1)
    ),
    "row by row": lambda x: torch.vmap(lambda row: row - row.mean())(x),
    "watched": watched,
    "row after row": lambda x: torch.stack([row.cumsum(0) for row in x]),
    "black stays black": lambda x: (x - 0.55).clamp(0, 1),
    "in eight bits": lambda x: x.to(torch.float8_e4m3fn).float(),
    "written into a new tensor": interleaved,
    "unused draw": lambda x: x + 0 * len(torch.rand(3)),
    "softmax": lambda x: torch.softmax(4 * x, 1),
}

RANDOM = {
    "noise": (lambda x: x + 0.1 * torch.randn_like(x), "torch.randn_like(x)"),
    "dropout": (lambda x: F.dropout(x, 0.5, training=True), "F.dropout(x, 0.5"),
    "bernoulli": (lambda x: x * torch.bernoulli(torch.full_like(x, 0.7)), "torch.bernoulli("),
    "python": (lambda x: x * (1 + 0.1 * random.random()), "random.random()"),
    "numpy": (lambda x: x + 0.1 * float(np.random.normal()), "np.random.normal()"),
    "a generator of its own": (by_its_own_generator, "GENERATOR.normal()"),
    "filled": (filled, "noise.normal_()"),
    "the system's entropy": (by_entropy, "os.urandom(16)"),
}


def line_of(text):
    """Number of the line of this file that holds `text`."""
    lines = Path(__file__).read_text().splitlines()
    return {n for n, line in enumerate(lines, 1) if text in line}
