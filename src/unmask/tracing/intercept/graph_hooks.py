"""What the user's code hangs on autograd's graph itself: hooks on its nodes, and on what it saves for the way back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

# Given a tensor, and what a gradient that comes to it becomes.
OnHook = Callable[[Tensor, Callable[..., Any]], Any]


class WatchedNode:
    """A node of autograd's graph as the user's code is handed it, so that hooks put on it are seen.

    **Arguments**
    - `node`: the node itself, which answers everything else.
    - `tensor`: what the node made, or another that a gradient passes before it comes to the node.
    - `watched`: wraps a hook, so that it acts only as long as the network runs.
    - `on_hook`: told of the tensor and of what the hook does to a gradient.
    """

    def __init__(
        self, node: Any, tensor: Tensor, watched: Callable[[Callable[..., Any]], Any], on_hook: OnHook
    ):
        self._node, self._tensor, self._watched, self._on_hook = node, tensor, watched, on_hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._node, name)

    def __eq__(self, other: object) -> bool:
        return self._node == (other._node if isinstance(other, WatchedNode) else other)

    def __hash__(self) -> int:
        return hash(self._node)

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        """As of the node."""
        return tuple(
            (None if n is None else WatchedNode(n, self._tensor, self._watched, self._on_hook), place)
            for n, place in self._node.next_functions
        )

    def register_prehook(self, hook: Callable[..., Any]) -> Any:
        """As of the node: the hook is given the gradients of what the node made."""
        self._on_hook(self._tensor, lambda grad: _first(hook((grad,)), grad))
        return self._node.register_prehook(self._watched(hook))

    def register_hook(self, hook: Callable[..., Any]) -> Any:
        """As of the node: the hook is given the gradients of what the node was given, and of what it made."""
        places = max(len(self._node.next_functions), 1)
        self._on_hook(self._tensor, lambda grad: _first(hook((grad,) * places, (grad,)), grad))
        return self._node.register_hook(self._watched(hook))


def backward_hooks_of(module: nn.Module) -> tuple[Callable[..., Any], ...]:
    """What has a say in a module's gradients: hooks of its own, then those that torch keeps for every module."""
    every = (*modules._global_backward_hooks.values(), *modules._global_backward_pre_hooks.values())
    return *module._backward_hooks.values(), *module._backward_pre_hooks.values(), *every


@contextmanager
def without_backward_hooks(module: nn.Module) -> Iterator[None]:
    """Leaves out a module's backward hooks, and those of every module (`register_module_full_backward_hook`)."""
    own, every = (
        ("_backward_hooks", "_backward_pre_hooks"),
        ("_global_backward_hooks", "_global_backward_pre_hooks"),
    )
    kept = [(o, name, getattr(o, name)) for o, names in ((module, own), (modules, every)) for name in names]
    for owner, name, _ in kept:
        setattr(owner, name, OrderedDict())
    try:
        yield
    finally:
        for owner, name, hooks in kept:
            setattr(owner, name, hooks)


def _first(changed: Any, grad: Tensor) -> Tensor | None:
    """The gradient that a hook on a node gives back, if one fits."""
    several = changed if isinstance(changed, tuple | list) else (changed,)
    return next((g for g in several if isinstance(g, Tensor) and g.shape == grad.shape), None)


@contextmanager
def watching_saves(*, left_out: bool, saw: Callable[[int], None] = lambda _: None) -> Iterator[None]:
    """Sees the user's own `saved_tensors_hooks`; torch's, as of checkpoints, go by.

    **Arguments**
    - `left_out`: they do nothing: what they change is the gradient, and never a value.
    - `saw`: told 1 where such a block begins and -1 where it ends.
    """
    kind = torch.autograd.graph.saved_tensors_hooks
    enter, leave = kind.__enter__, kind.__exit__

    def users(hooks: Any) -> bool:
        torchs = type(hooks) is not kind and type(hooks).__module__.startswith("torch.")
        return not torchs and not getattr(hooks.pack_hook, "__module__", "").startswith(("torch.", "unmask."))

    def entered(hooks: Any) -> None:
        if users(hooks):
            saw(1)
            if left_out:
                return None
        return enter(hooks)

    def left(hooks: Any, *args: object) -> None:
        if users(hooks):
            saw(-1)
            if left_out:
                return None
        return leave(hooks, *args)  # pyright: ignore[reportArgumentType]

    kind.__enter__, kind.__exit__ = entered, left  # type: ignore[method-assign]
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = enter, leave  # type: ignore[method-assign]
