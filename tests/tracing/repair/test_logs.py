"""Logs of shares that have no slope of their own any more."""

import pytest
import torch
from tests.tracing.fresh import half_shares
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten
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
