"""What follows a softened step, differentiated where the softened value stands."""

import pytest
import torch
from tests.tracing.fresh_again import sinkhorn
from tests.tracing.idiom_table import along, attacked
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


def shares_of_the_largest(net, x):
    shares = torch.softmax(60 * net.inner(x), 1)
    return shares / shares.amax(1, keepdim=True)


def signs_normalised(net, x):
    signs = torch.sign(net.inner(x)).reshape(-1, 4, 4)
    mean = signs.mean(2, keepdim=True)
    return ((signs - mean) / (signs.var(2, keepdim=True) + 0.01).sqrt()).flatten(1)


@pytest.mark.parametrize("step", [sinkhorn, shares_of_the_largest, signs_normalised])
def test_it_breaks_as_much_as_the_best_of_the_others(step):
    torch.manual_seed(1)
    network = Network(step).eval()
    x = images(16)
    y = network(x).argmax(1)
    repairs = {r.name: Rewritten(network, r.rewrite) for r in propose(suspects(network))}
    left = {name: attacked(network, x, y, along(f, y)) for name, f in repairs.items()}
    assert left["relaxed"] <= min(left.values()), left


def test_no_value_changes():
    network = Network(signs_normalised).eval()
    x = images()
    (relaxed,) = (r for r in propose(suspects(network)) if r.name == "relaxed")
    assert torch.equal(Rewritten(network, relaxed.rewrite)(x.clone().requires_grad_()), network(x))
