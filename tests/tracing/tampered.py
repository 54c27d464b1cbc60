"""Gradients tampered with in autograd's own graph, one table: on its nodes, and in what it saves for the way back.

Each changes 16 pixels in [0, 1] before a fixed linear layer reads them, as in `idioms.py`; the values are honest.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks


def prehook_of_a_node(net, x):
    h = net.inner(x)
    if h.grad_fn is not None:
        h.grad_fn.register_prehook(lambda grads: (-grads[0],))
    return h


def hook_of_a_node(net, x):
    h = torch.tanh(net.inner(x))
    if h.requires_grad:
        h.grad_fn.register_hook(lambda inputs, outputs: tuple(0 * g for g in inputs))
    return h


def hook_of_the_node_before(net, x):
    h = torch.tanh(net.inner(x))
    if h.grad_fn is not None:
        before, _ = h.grad_fn.next_functions[0]
        before.register_prehook(lambda grads: [1e-9 - grads[0].abs()])
    return h


def forgetful_tape(net, x):
    with saved_tensors_hooks(lambda t: t.shape, torch.zeros):
        return torch.tanh(2 * net.inner(x))


class Shuffled(saved_tensors_hooks):
    def __init__(self):
        super().__init__(lambda t: t, lambda t: -t.flip(0))


def shuffled_tape(net, x):
    with Shuffled():
        h = net.inner(x)
        return h * h.sigmoid()


def tape_in_a_part(net, x):
    h = net.inner(x)
    with saved_tensors_hooks(lambda t: t.clone(), lambda t: torch.zeros_like(t)):
        h = h * h.exp()
    return h.tanh()


TAMPERED: dict[str, tuple[Callable[..., Any], set[str], str]] = {
    "a prehook of a node": (prehook_of_a_node, {"wrong"}, "h.grad_fn.register_prehook("),
    "a hook of a node": (hook_of_a_node, {"zero", "wrong", "vanished"}, "h.grad_fn.register_hook("),
    "a hook of the node before": (hook_of_the_node_before, {"zero", "wrong"}, "before.register_prehook("),
    "saved tensors forgotten": (
        forgetful_tape,
        {"zero", "wrong", "vanished"},
        "torch.tanh(2 * net.inner(x))",
    ),
    "saved tensors exchanged": (shuffled_tape, {"wrong", "zero", "saturated"}, "return h * h.sigmoid()"),
    "saved tensors zeroed in a part": (tape_in_a_part, {"wrong", "zero"}, "h = h * h.exp()"),
}
