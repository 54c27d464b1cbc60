"""Saturation in its spellings: `torch.special`, two arguments, in place, a floor and a ceiling, in several parts."""

import functools

import pytest
import torch
import torch.nn.functional as F
from tests.tracing.networks import Wrapped
from tests.tracing.test_analyse import images, suspects
from torch import special

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten

SATURATED = {
    "special.erf": special.erf,
    "special.erfc": special.erfc,
    "special.ndtr": special.ndtr,
    "special.expit": lambda a: special.expit(9 * a),
    "special.gammainc": lambda a: special.gammainc(torch.full_like(a, 2.0), 8 * a.abs()),
    "special.gammaincc": lambda a: special.gammaincc(torch.full_like(a, 2.0), 8 * a.abs()),
    "softmin": lambda a: F.softmin(5 * a, 1),
    "tanh_": lambda a: (3 * a).tanh_(),
    "the exp of a square": lambda a: torch.exp(-a * a),
    "a floor, then a ceiling": lambda a: a.clamp_min(-1).clamp_max(1),
    "maximum of minimum": lambda a: torch.maximum(torch.minimum(a, torch.tensor(1.0)), torch.tensor(-1.0)),
    "fmin of fmax": lambda a: torch.fmin(torch.fmax(a, torch.tensor(-1.0)), torch.tensor(1.0)),
    "clamp between tensors": lambda a: torch.clamp(a, torch.tensor(-1.0), torch.tensor(1.0)),
}


def subtracted_in_place(a):
    y = 2 * F.relu(a + 1)
    y -= 2 * F.relu(a - 1)
    return y


def by_thirds(a):
    return F.relu(a + 1) - 0.5 * F.relu(a) - 0.5 * F.relu(a - 1)


# No operation of these is flat where the whole is; the line named is that of the last.
IN_PARTS = {
    "a difference of ReLUs": lambda a: F.relu(a + 1) - F.relu(a - 1),
    "a falling one": lambda a: F.relu(a - 1) - F.relu(a + 1),
    "a difference in place": subtracted_in_place,
    "three ReLUs": by_thirds,
    "a difference of moduli": lambda a: (a + 1).abs() - (a - 1).abs(),
    "a difference of maxima": lambda a: (
        torch.maximum(a, torch.tensor(-1.0)) - torch.maximum(a, torch.tensor(1.0))
    ),
    "a difference of softplus": lambda a: F.softplus(3 * a) - F.softplus(3 * a - 1),
    "a difference of logaddexp": lambda a: (
        torch.logaddexp(3 * a, torch.tensor(0.0)) - torch.logaddexp(3 * a, torch.tensor(1.0))
    ),
    "silu by its argument": lambda a: F.silu(6 * a) / (6 * a),
    "gelu by its argument": lambda a: F.gelu(a) / a,
    "hardswish by its argument": lambda a: F.hardswish(2 * a) / a,
    "a gate": lambda a: F.glu(torch.cat([torch.ones_like(a), 6 * a], 1), 1),
    "a gate along another dimension": lambda a: F.glu(
        torch.stack([torch.ones_like(a), 6 * a], 1), dim=1
    ).squeeze(1),
}


def halves(parts):
    a, b = parts
    return a - b


def silu_by_a_half(a):
    a, b = torch.cat([6 * a, 6 * a], 1).chunk(2, 1)
    return F.silu(a) / b


def gate_of_halves(x):
    a, b = torch.cat([x, x], 1).chunk(2, 1)
    return a * torch.sigmoid(b)


def again(curve, times):
    """A curve of itself, as often."""
    return lambda a: functools.reduce(lambda v, _: curve(v), range(times), a / 30)


def first_half(y):
    return y[:, :16] - y[:, 16:]


PAIR, SIGNS = torch.tensor([1.0, -1.0]), torch.tensor([1.0, -1.0])
# The parts of one tensor.
IN_HALVES = {
    "chunks of a ReLU": lambda a: halves(F.relu(torch.cat([a + 1, a - 1], 1)).chunk(2, 1)),
    "splits": lambda a: halves(F.relu(torch.cat([a + 1, a - 1], 1)).split(16, 1)),
    "tensor_split": lambda a: halves(F.relu(torch.hstack([a + 1, a - 1])).tensor_split(2, 1)),
    "chunks of a batch": lambda a: halves(F.relu(torch.cat([a + 1, a - 1])).chunk(2)),
    "slices": lambda a: first_half(F.relu(torch.cat([a + 1, a - 1], 1))),
    "a stack, unbound": lambda a: halves(F.relu(torch.stack([a + 1, a - 1])).unbind()),
    "a stack, by number": lambda a: (s := F.relu(torch.stack([a + 1, a - 1], 2)))[..., 0] - s[..., 1],
    "select": lambda a: (s := torch.stack([a + 1, a - 1]).abs()).select(0, 0) - s.select(0, 1),
    "two thresholds, weighed": lambda a: (F.relu(a[..., None] + PAIR) * SIGNS).sum(-1),
    "two thresholds, multiplied": lambda a: F.relu(a.unsqueeze(-1) + PAIR) @ SIGNS,
    "two thresholds, by a layer": lambda a: F.linear(F.relu(a.unsqueeze(-1) + PAIR), SIGNS[None]).squeeze(-1),
    "diff": lambda a: -F.relu(torch.stack([a + 1, a - 1], 1)).diff(dim=1).flatten(1),
    "rows on their side": lambda a: halves(F.relu(torch.stack([a + 1, a - 1], 2)).transpose(1, 2).unbind(1)),
    "views of rows": lambda a: halves(F.relu(torch.cat([a + 1, a - 1], 1)).view(-1, 2, 16).unbind(1)),
    "silu, in halves": silu_by_a_half,
    "means of two": lambda a: F.relu(a.unsqueeze(-1) + PAIR).mul(SIGNS).mean(-1),
    "repeated": lambda a: first_half(F.relu(a.repeat(1, 2) + PAIR.repeat_interleave(16))),
}
# No curve of these is flat where it stands; the line named is that of the last.
IN_CHAINS = {
    "tanh again and again": again(lambda v: torch.tanh(3 * v), 7),
    "sigmoid again and again": again(lambda v: 2 * torch.sigmoid(6 * v) - 1, 7),
    "different curves": again(lambda v: torch.erf(2 * torch.atan(2 * v)), 5),
    "in place": again(lambda v: (2.5 * v).tanh_(), 8),
}
HONEST = {
    "pixels kept in the box": lambda x: x.clamp_min(0).clamp_max(1),
    "maximum of two halves": lambda x: torch.maximum(x[:, :8], x[:, 8:]).repeat(1, 2),
    "exp": torch.exp,
    "special.erf": special.erf,
    "a Gaussian": lambda x: torch.exp(-x * x),
    "softmin": lambda x: F.softmin(x, 1),
    # Of several parts, and flat nowhere, or on one side alone.
    "swish": lambda x: x * torch.sigmoid(x),
    "steep swish": lambda x: 60 * (x - 0.5) * torch.sigmoid(60 * (x - 0.5)),
    "hardswish by hand": lambda x: (8 * x - 4) * F.relu6(8 * x - 1) / 6,
    "gelu by tanh": lambda x: x * (1 + torch.tanh(0.8 * (x + 0.04 * x**3))) / 2,
    "leaky, of two ReLUs": lambda x: F.relu(60 * (x - 0.5)) - 0.1 * F.relu(60 * (0.5 - x)),
    "a ReLU of a modulus": lambda x: (60 * (x - 0.5) + (60 * (x - 0.5)).abs()) / 60,
    "what a ReLU takes away": lambda x: 60 * (x - 0.5) - F.relu(60 * (x - 0.5)),
    "beside itself": lambda x: x + F.relu(x - 0.5),
    "straight through": lambda x: x + (torch.relu(x) - x).detach(),
    "an open gate": lambda x: F.glu(torch.cat([x, x], 1), 1),
    "curves of curves": lambda x: torch.tanh(torch.sigmoid(torch.tanh(2 * x - 1))),
    "a floor, a ceiling and a curve": lambda x: torch.tanh(x.clamp_min(0.1).clamp_max(0.9)),
    # Of parts that are arranged anew.
    "maxout": lambda x: (s := x.reshape(-1, 2, 8) - 0.5).amax(1).repeat(1, 2) + s.flatten(1),
    "a ReLU of its own mirror": lambda x: F.relu(60 * (x - 0.5)) - F.relu(60 * (x.flip(1) - 0.5)),
    "halves changed over": lambda x: F.relu(torch.cat([x[:, 8:], x[:, :8]], 1) - 0.5) - 0.5 * x,
    "a rotation": lambda x: torch.cat([-x[:, 8:], x[:, :8]], 1) * 0.5 + x * 0.8,
    "a concatenated ReLU": lambda x: (
        (y := F.relu(torch.cat([x - 0.5, 0.5 - x], 1)))[:, :16] - 0.3 * y[:, 16:]
    ),
    "differences of neighbours": lambda x: F.relu(60 * (x - x.roll(1, 1))) - F.relu(60 * (x.roll(1, 1) - x)),
    "less its mean": lambda x: F.relu(x - x.mean(1, keepdim=True)) * x,
    "an open gate of halves": gate_of_halves,
    "a ramp": lambda x: F.relu(x) - F.relu(x - 2),
}


def steep(step):
    return Wrapped(lambda x: step(60 * (x - 0.5)))


def dead(network):
    """Share of the pixels to which no gradient goes back."""
    x = images().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    return float((slope.abs() < 1e-6).float().mean())


@pytest.mark.parametrize("name", [*SATURATED, *IN_PARTS, *IN_HALVES, *IN_CHAINS])
def test_it_is_seen_and_some_repair_reaches_every_pixel(name):
    network = steep({**SATURATED, **IN_PARTS, **IN_HALVES, **IN_CHAINS}[name])
    analysis = suspects(network)
    assert "saturated" in {s.symptom.name for s in analysis.suspects}
    assert dead(network) > 0.5
    assert min(dead(Rewritten(network, r.rewrite)) for r in propose(analysis)) < 0.01


@pytest.mark.parametrize("name", HONEST)
def test_where_it_has_a_slope_nothing_is_said(name):
    assert not suspects(Wrapped(HONEST[name])).suspects
