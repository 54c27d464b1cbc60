"""Logs of shares that have no slope of their own any more."""

import math

import pytest
import torch
from tests.tracing.fresh import half_shares
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import LogShares, Rewrite
from unmask.tracing.squashing import logs_taken


def held_above_a_floor(net, x):
    return torch.softmax(300 * x, 1).clamp_min(1e-12).log() / 40


def a_little_added_in_a_view(net, x):
    shares = torch.softmax(200 * x.reshape(-1, 4, 4), 2) + 1e-9
    return shares.reshape(len(x), -1).log2() / 40


def sigmoid_in_sixteen_bits(net, x):
    return (torch.sigmoid(60 * (x - 0.6).bfloat16()) * 0.999).float().clamp_min(1e-6).log() / 10


@pytest.mark.parametrize(
    "step", [half_shares, held_above_a_floor, a_little_added_in_a_view, sigmoid_in_sixteen_bits]
)
def test_the_logs_of_shares_have_a_slope_everywhere(step):
    network = Network(step).eval()
    analysis = suspects(network)
    assert logs_taken(analysis.base)
    x = images().requires_grad_()
    slopes = []
    for repair in propose(analysis):
        logits = Rewritten(network, repair.rewrite)(x)
        assert torch.equal(logits, network(x.detach())), repair.name
        (found,) = torch.autograd.grad(logits[:, 0].sum(), x)
        slopes.append((found.abs() > 1e-3).float().mean())
    assert max(slopes) > 0.9, slopes


def test_a_floor_that_holds_few_shares_is_none():
    analysis = suspects(Network(lambda net, x: torch.softmax(4 * x, 1).clamp_min(1e-12).log()).eval())
    assert not analysis.suspects


PLACES = torch.rand(12, 16, generator=torch.Generator().manual_seed(3))
VOTES = torch.eye(4).repeat(3, 1)


def kernels(x, bandwidth=0.06):
    return torch.exp(-torch.cdist(x, PLACES).square() / (2 * bandwidth**2))


def density(x):
    return torch.log(kernels(x) @ VOTES + 1e-37) / 100


def density_by_class(x):
    near = kernels(x)
    return torch.stack([near[:, VOTES[:, c] > 0].sum(1) for c in range(4)], 1).clamp_min(1e-37).log() / 100


def density_shared(x):
    mixed = (kernels(x).unsqueeze(2) * VOTES).mean(1) + 1e-30
    return torch.log(mixed / mixed.sum(1, keepdim=True)) / 100


def density_in_bits(x):
    near = torch.exp2(-torch.cdist(x, PLACES).square() / (2 * 0.06**2 * math.log(2)))
    return torch.einsum("nk,kc->nc", near, VOTES).add(1e-37).log2() / 100


def naive_bayes(x):
    fits = torch.exp(-(x.unsqueeze(1) - PLACES[:4]).square() / (2 * 0.09**2))
    return torch.log(fits.prod(2) + 1e-37) / 100


class Returned(torch.nn.Module):
    """Flattens, and returns what is made of the pixels."""

    def __init__(self, made):
        super().__init__()
        self.made = made

    def forward(self, x):
        return self.made(x.flatten(1))


@pytest.mark.parametrize("made", [density, density_by_class, density_shared, density_in_bits, naive_bayes])
def test_the_log_of_a_sum_of_exponentials_that_underflow_has_the_slope_of_that_sum(made):
    network = Returned(made).eval()
    analysis = suspects(network)
    x = images().requires_grad_()
    plain = network(x)
    assert (plain == plain[:, :1]).all(1).any()  # nothing is left of all of them
    far = torch.cdist(x.flatten(1).double(), PLACES.double()).square() / (2 * 0.06**2)
    truth = torch.stack([(-far[:, VOTES[:, c] > 0]).logsumexp(1) for c in range(4)], 1)
    if made is naive_bayes:
        truth = -far[:, :4] * (0.06 / 0.09) ** 2
    (true,) = torch.autograd.grad((truth[:, 0] - truth[:, 1]).sum(), x)
    repaired = []
    for repair in propose(analysis):
        logits = Rewritten(network, repair.rewrite)(x)
        assert torch.equal(logits, network(x.detach())), repair.name
        (found,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), x)
        repaired.append(
            float(torch.nn.functional.cosine_similarity(found.flatten(), true.float().flatten(), dim=0))
        )
    assert max(repaired) > 0.99, repaired


@pytest.mark.parametrize(
    "made",
    [
        lambda x: torch.log(kernels(x) @ (VOTES - 0.2) + 2),
        lambda x: torch.log(kernels(x, 0.5) @ VOTES + x[:, :4]),
        lambda x: torch.log((kernels(x, 0.5).unsqueeze(2) * (VOTES - 0.5)).sum(1).square() + 1),
    ],
    ids=["weights below zero", "something else added", "a square"],
)
def test_no_log_of_anything_else_is_exchanged(made):
    x = images().requires_grad_()
    network = Returned(made).eval()
    (true,) = torch.autograd.grad(network(x)[:, 0].sum(), x)
    rules = {r.group: LogShares() for r in suspects(network).base.records if r.name == "exp"}
    (found,) = torch.autograd.grad(Rewritten(network, Rewrite(rules))(x)[:, 0].sum(), x)
    assert torch.equal(found, true)
