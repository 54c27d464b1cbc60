"""How large a network is to those who relax it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...state.checkpointing import differentiable_checkpoints


class _Bends(TorchFunctionMode):
    """Counts the outputs of activations, as modules and as functions alike."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").rstrip("_") in ("relu", "sigmoid", "tanh"):
            self.count += made.numel()
        return made


def measured(network: nn.Module, x: Tensor) -> tuple[int, int]:
    """Outputs of all layers that bend, for `x` `[1, *dims]`, and classes.

    A linear relaxation's cost grows with the square of the first. **Cost**: one forward.
    """
    with torch.no_grad(), differentiable_checkpoints(), _Bends() as bends:
        made = network(x.clone())
    return bends.count, made.numel() if isinstance(made, Tensor) else 1


def hidden_elements(network: nn.Module, x: Tensor) -> int:
    """The first of what is `measured`."""
    return measured(network, x)[0]
