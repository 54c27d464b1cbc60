"""Gradients that a network takes of its own: differentiated as well, an attack goes as far as one along differences."""

from pathlib import Path

import pytest
import torch
from tests.tracing import fresh_again, inner
from tests.tracing.idiom_table import along, attacked, by_hand
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.mark.parametrize("name", inner.INNER)
def test_the_way_goes_on_through_the_gradient(name):
    step, text = inner.INNER[name]
    lines = Path(inner.__file__).read_text().splitlines()
    network = Network(step).eval()
    analysis = suspects(network)
    assert analysis.warning == ""
    assert any(text in lines[s.site.line - 1] for s in analysis.suspects if s.symptom.name == "cut")
    x = images(8)
    with torch.no_grad():
        y = network(x).argmax(1)
    repairs = {r.name: Rewritten(network, r.rewrite) for r in propose(analysis)}
    left = {word: attacked(network, x, y, along(f, y)) for word, f in repairs.items()}
    assert min(left.values()) <= attacked(network, x, y, by_hand(network, y))


def nesterov(net, x):
    """The step before is a number for the next gradient, which is taken with respect to what both begin at."""
    z = x.detach().requires_grad_()
    pace = torch.zeros_like(z)
    with torch.enable_grad():
        for _ in range(3):
            (g,) = torch.autograd.grad((net.inner(z + 0.9 * pace).tanh() ** 2).sum(), z)
            pace = 0.9 * pace - 0.05 * g
    return (z + pace).detach()


def by_grad_attribute(net, x):
    """The same, with gradients that add up in `.grad`."""
    z = x.detach().requires_grad_()
    with torch.enable_grad():
        for _ in range(2):
            moved = z if z.grad is None else z - 0.05 * z.grad
            (net.inner(moved).tanh() ** 2).sum().backward()
    return (z - 0.05 * torch.as_tensor(z.grad)).detach()


@pytest.mark.parametrize(
    "step",
    [
        inner.normalised,
        fresh_again.lookahead,
        nesterov,
        by_grad_attribute,
        inner.at_no_leaf,
        inner.at_no_leaf_by_method,
        inner.at_a_leaf_and_behind_it,
        inner.past_a_gradient_that_stays,
        inner.projected,
    ],
)
def test_the_gradient_of_an_unrolled_step_is_the_networks_own(step):
    network = Network(step).double().eval()
    x = images(2).double()
    (unrolled,) = (r for r in propose(suspects(Network(step).eval())) if r.name == "unrolled")
    f = Rewritten(network, unrolled.rewrite)
    z = x.clone().requires_grad_()
    logits = f(z)
    assert isinstance(logits, torch.Tensor)
    (found,) = torch.autograd.grad(logits.square().sum(), z)
    step = 1e-6 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    with torch.no_grad():
        change = network(x + step).square().sum() - network(x - step).square().sum()
    assert torch.allclose(2 * (found * step).sum(), change, rtol=1e-4)
