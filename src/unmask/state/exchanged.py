"""One call of a network with other numbers in the places of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call


def call_with(network: nn.Module, tensors: Mapping[str, Tensor], x: Tensor) -> Any:
    """What the network returns for `x` with `tensors` in the place of its own, which are as they were afterwards.

    **Arguments**
    - `tensors`: by the names of `named_parameters` and `named_buffers`; each goes wherever the one of that name is
      kept.

    **Differs** from `torch.func.functional_call`, which exchanges a tensor once for each name that its module has
    (torch 2.13), and so leaves the new ones in a module that is registered under two names.
    """
    own = (*network.named_parameters(), *network.named_buffers())
    name_of = {id(tensor): name for name, tensor in own}
    given = {
        place: tensors[name] for place, tensor in _places(network) if (name := name_of[id(tensor)]) in tensors
    }
    return functional_call(network, given, (x,), tie_weights=False)


def _places(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer wherever it is kept, and each place once, whatever names its module has."""
    for prefix, module in network.named_modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield f"{prefix}.{name}" if prefix else name, tensor
