"""Saturation in its spellings: `torch.special`, two arguments, in place, a floor and a ceiling."""

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
HONEST = {
    "pixels kept in the box": lambda x: x.clamp_min(0).clamp_max(1),
    "maximum of two halves": lambda x: torch.maximum(x[:, :8], x[:, 8:]).repeat(1, 2),
    "exp": torch.exp,
    "special.erf": special.erf,
    "a Gaussian": lambda x: torch.exp(-x * x),
    "softmin": lambda x: F.softmin(x, 1),
}


def steep(step):
    return Wrapped(lambda x: step(60 * (x - 0.5)))


def dead(network):
    """Share of the pixels to which no gradient goes back."""
    x = images().requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    return float((slope.abs() < 1e-6).float().mean())


@pytest.mark.parametrize("name", SATURATED)
def test_it_is_seen_and_some_repair_reaches_every_pixel(name):
    network = steep(SATURATED[name])
    analysis = suspects(network)
    assert "saturated" in {s.symptom.name for s in analysis.suspects}
    assert dead(network) > 0.5
    assert min(dead(Rewritten(network, r.rewrite)) for r in propose(analysis)) < 0.01


@pytest.mark.parametrize("name", HONEST)
def test_where_it_has_a_slope_nothing_is_said(name):
    assert not suspects(Wrapped(HONEST[name])).suspects
