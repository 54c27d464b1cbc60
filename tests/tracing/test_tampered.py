"""Hooks on autograd's own graph are named, and left out of a repaired gradient, which is then the honest one."""

from pathlib import Path

import pytest
import torch
from tests.tracing import tampered
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects
from torch.autograd.graph import get_gradient_edge, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import Rewrite


@pytest.mark.parametrize("name", tampered.TAMPERED)
def test_named_and_undone(name):
    step, symptoms, text = tampered.TAMPERED[name]
    lines = Path(tampered.__file__).read_text().splitlines()
    network = Network(step).double().eval()
    analysis = suspects(Network(step).eval())
    assert analysis.warning == ""
    found = [(s.symptom.name, s.site.line) for s in analysis.suspects]
    assert any(name in symptoms and text in lines[line - 1] for name, line in found), found
    x = images(2).double()
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=x.dtype)
    slope = (network(x + 1e-6 * v).sum() - network(x - 1e-6 * v).sum()).item() / 2e-6
    slopes = []
    for repair in propose(analysis):
        z = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(Rewritten(network, repair.rewrite)(z).sum(), z)
        slopes.append(float((g * v).sum()))
    assert any(abs(found - slope) <= 1e-4 * abs(slope) for found in slopes), (slope, slopes)


def test_what_torch_saves_its_own_way_is_left_alone():
    packed = []

    def step(net, x):
        h = checkpoint(net.inner, x, use_reentrant=False)
        with torch.autograd.graph.save_on_cpu():
            h = h.tanh()
        with saved_tensors_hooks(lambda t: packed.append(1) or t, lambda t: t):
            return h.exp()

    network = Network(step).eval()
    x = images(2).requires_grad_()
    (g,) = torch.autograd.grad(Rewritten(network, Rewrite())(x).sum(), x)
    assert not packed
    assert torch.equal(g, torch.autograd.grad(network(x).sum(), x)[0])
    assert packed


def test_the_node_that_user_code_is_handed_answers_as_the_node_does():
    def step(net, x):
        h = net.inner(x)
        if h.grad_fn is not None:
            assert h.grad_fn.name() == "AddmmBackward0"
            assert h.grad_fn == h.grad_fn
            assert len(h.grad_fn.next_functions) == 3
            assert get_gradient_edge(h).node.name() == h.grad_fn.name()
            assert hash(h.grad_fn) == hash(get_gradient_edge(h).node)
        return h

    analysis = suspects(Network(step).eval())
    assert (analysis.warning, analysis.suspects) == ("", ())
