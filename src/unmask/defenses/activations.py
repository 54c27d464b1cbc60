"""A change to every activation of a network, whatever the network is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..classifier import Network

NAMES = (
    "relu relu_ relu6 leaky_relu leaky_relu_ prelu rrelu rrelu_ elu elu_ selu selu_ celu celu_ gelu silu mish "
    "softplus hardtanh hardtanh_ hardswish hardsigmoid sigmoid sigmoid_ tanh tanh_"
).split()
ACTIVATIONS = frozenset(
    getattr(place, name) for place in (torch, F, Tensor) for name in NAMES if hasattr(place, name)
)


class _Changing(TorchFunctionMode):
    def __init__(self, change: Callable[[Tensor], Tensor]):
        super().__init__()
        self.change = change

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # While this runs the mode is off, so that F.relu, which calls torch.relu, counts once.
        made = func(*args, **(kwargs or {}))
        return self.change(made) if func in ACTIVATIONS else made


class ActivationsChanged(nn.Module):
    """A network whose every activation goes through `change` before the next layer sees it.

    Covered are the modules, functions and methods that torch offers under the names in `NAMES`, in any network
    that runs as Python: `nn.ReLU()`, `F.relu(x)`, `torch.relu(x)`, `x.relu()`, and their in-place forms **where
    the returned tensor is used**. Not covered: activations spelled otherwise (`x.clamp(min=0)`,
    `torch.maximum`), soft-max, pooling, and code that is scripted or compiled.
    """

    def __init__(self, network: Network, change: nn.Module):
        super().__init__()
        self.network = network
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        """The network's own outputs, with changed activations on the way."""
        with _Changing(self.change):
            return self.network(x)  # type: ignore[return-value]
