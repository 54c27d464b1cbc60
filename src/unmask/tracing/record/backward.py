"""What a backward pass does at one operation: whether it raises there, and our own operations on recorded graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge


def refuses(tensor: Tensor) -> bool:
    """Whether the backward of what made a tensor raises: `//`, an operator without a derivative, a missing backward."""
    made_by = tensor.grad_fn
    assert made_by is not None
    if made_by.name().endswith("NotImplemented"):
        return True
    if not isinstance(made_by, torch.autograd.function.BackwardCFunction) or not made_by.next_functions:
        return False
    return not goes_back(
        [tensor], [GradientEdge(node, n) for node, n in made_by.next_functions if node is not None]
    )


def goes_back(ends: list[Tensor], edges: list[GradientEdge]) -> bool:
    """Whether a gradient comes from the tensors to the edges without an exception."""
    try:
        with torch.random.fork_rng(devices=[]):
            zeros = [torch.zeros_like(end) for end in ends]
            torch.autograd.grad(ends, edges, zeros, retain_graph=True, allow_unused=True)  # pyright: ignore
    except Exception:  # the user's own code: it may raise anything
        return False
    return True


class Valves:
    """Where a gradient that the network took of its own goes on as a number: none of its next ones lead through there.

    Entered while such a gradient is taken, and shut as long; open for whoever differentiates the whole.
    """

    def __init__(self) -> None:
        self.shut = False

    def __enter__(self) -> None:
        self.shut = True

    def __exit__(self, *_: object) -> None:
        self.shut = False

    def behind(self, made: Tensor | None, beside: Tensor | None) -> Tensor | None:
        """What stands for `made`, a gradient of the network's own; unchanged where that has a graph itself."""
        if made is None or beside is None:
            return None
        return beside if made.requires_grad else _Valve.apply(beside, self)


class _Valve(torch.autograd.Function):
    """Identity without a gradient while its valves are shut."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, valves: Valves) -> Tensor:
        ctx.valves = valves
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:  # type: ignore[override]
        return None if ctx.valves.shut else grad, None


class Hooked(torch.autograd.Function):
    """Identity whose backward is a tensor's hook."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, hook: Callable[..., Any]) -> Tensor:
        ctx.hook = hook
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        changed = ctx.hook(grad)
        return grad if changed is None else changed, None


class Valued(torch.autograd.Function):
    """The user's numbers, bit for bit, with the graph of their shadows."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, shadow: Tensor) -> Tensor:
        return logits.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, grad


class Root(torch.autograd.Function):
    """Puts a tensor without a graph into one, in place and without a change of its values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, anchor: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None]:  # type: ignore[override]
        return None, None
