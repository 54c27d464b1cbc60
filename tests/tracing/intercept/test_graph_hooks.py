"""Backward hooks that torch keeps for every module: seen at the modules they change, left out by repairs, kept."""

import pytest
import torch
from tests.tracing.test_analyse import images
from torch import nn
from torch.nn.modules import module as modules

from unmask.classifier import Classifier
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.intercept.graph_hooks import backward_hooks_of, without_backward_hooks
from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


class Calm(nn.Tanh):
    pass


def silence(module, grad_input, grad_output):
    return (grad_input[0] * 0,) if isinstance(module, Calm) else None


def silence_early(module, grad_output):
    return (grad_output[0] * 0,) if isinstance(module, Calm) else None


def look(module, grad_input, grad_output):
    return None


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 12), Calm(), nn.Linear(12, 4))


class Hooks(nn.Module):
    """Puts the hook on in its forward pass, and takes it off again."""

    def __init__(self, put, hook):
        super().__init__()
        self.body, self.put, self.hook = network(), put, hook

    def forward(self, x):
        handle = self.put(self.hook)
        try:
            return self.body(x)
        finally:
            handle.remove()


WAYS = {
    "a full hook": (modules.register_module_full_backward_hook, silence),
    "a hook before": (modules.register_module_full_backward_pre_hook, silence_early),
}


def analysed(net):
    x = images()
    with torch.no_grad():
        y = net(x).argmax(1)
    return analyse(
        Classifier(net), x, y, Linf(epsilon=0.2), seed=0, generator=torch.Generator().manual_seed(0)
    )


def slope(forward):
    x = images().requires_grad_()
    (grad,) = torch.autograd.grad(forward(x).square().sum(), x)
    return grad


def check(net, hook):
    found = analysed(net)
    lines = {(s.symptom.name, s.site.file, s.site.line) for s in found.suspects}
    assert lines == {("wrong", __file__, hook.__code__.co_firstlineno)}
    bare = network()
    with without_backward_hooks(bare):
        true = slope(bare)
    repairs = [slope(Rewritten(net, r.rewrite)) for r in propose(found)]
    assert repairs
    assert all(torch.allclose(g, true, atol=1e-6) for g in repairs)
    assert not torch.allclose(slope(net), true, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_hook_for_every_module_is_named_where_it_begins_and_left_out(way):
    put, hook = WAYS[way]
    handle = put(hook)
    try:
        check(network(), hook)
        assert backward_hooks_of(nn.Tanh()) == (hook,)  # it is still there
    finally:
        handle.remove()


@pytest.mark.parametrize("way", WAYS)
def test_one_that_is_there_in_the_forward_pass_alone_as_well(way):
    put, hook = WAYS[way]
    check(Hooks(put, hook), hook)
    assert backward_hooks_of(nn.Tanh()) == ()


def test_a_hook_that_only_looks_is_no_suspect():
    handle = modules.register_module_full_backward_hook(look)
    try:
        assert analysed(network()).suspects == ()
    finally:
        handle.remove()


def test_what_was_left_out_comes_back_after_an_error_but_for_what_was_taken_off_meanwhile():
    seen, layer = [], Calm()

    def fails():
        seen.append(backward_hooks_of(layer))
        handles[0].remove()
        raise ValueError("fails")

    handles = [modules.register_module_full_backward_hook(hook) for hook in (silence, look)]
    layer.register_full_backward_hook(silence)
    layer.register_full_backward_pre_hook(silence_early)
    try:
        with pytest.raises(ValueError, match="fails"), without_backward_hooks(layer):
            fails()
        assert seen == [()]
        assert backward_hooks_of(layer) == (silence, silence_early, look)
    finally:
        for handle in handles:
            handle.remove()
