"""How large a network is to those who relax it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Bends(TorchFunctionMode):
    """Counts the outputs of activations, as modules and as functions alike."""

    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "").rstrip("_") in ("relu", "sigmoid", "tanh"):
            self.count += made.numel()
        return made


def hidden_elements(network: nn.Module, x: Tensor) -> int:
    """Outputs of all layers that bend, for `x` `[1, *dims]`: a linear relaxation's cost grows with their square.

    **Cost**: one forward.
    """
    with torch.no_grad(), _Bends() as bends:
        network(x.clone())
    return bends.count
