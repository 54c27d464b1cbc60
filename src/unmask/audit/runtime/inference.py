"""Networks and images made under `torch.inference_mode`, which no gradient passes until they are copied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...classifier import Classifier
from ...data import Data
from ...errors import UnusableInput
from ...target.target import Target


def released(target: Any, data: Data) -> tuple[Any, Data]:
    """The same network with tensors that autograd takes, exchanged in its modules, and the same images.

    Equal values, and nothing is touched that was made outside of inference mode. Call it outside.

    **Raises** `UnusableInput` where a lazy module has not been called: nobody can say what its weights will be.
    """
    network = target.network if isinstance(target, Target) else target
    network = network.network if isinstance(network, Classifier) else network
    if isinstance(network, nn.Module):
        _refuse_unmade(network)
        _release(network)
    tensors = {n: _copied(getattr(data, n)) for n in ("x", "y", "index")}
    return target, replace(data, **tensors)


def _refuse_unmade(network: nn.Module) -> None:
    for name, module in network.named_modules():
        own = (*module._parameters.values(), *module._buffers.values())
        if any(t is not None and is_lazy(t) for t in own):
            raise UnusableInput(
                f"`{name or type(network).__name__}` is a {type(module).__name__}, whose weights are made by its first "
                "call; call the network on an image before you return it, and load its weights after that"
            )


def _copied(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def _release(network: nn.Module) -> None:
    known: dict[int, Tensor] = {}  # a parameter shared by two modules stays shared
    for module in network.modules():
        for name, p in module._parameters.items():
            if p is not None and p.is_inference():
                copy = known.setdefault(id(p), nn.Parameter(p.clone(), requires_grad=p.requires_grad))
                module._parameters[name] = copy  # pyright: ignore[reportArgumentType]
        for name, b in module._buffers.items():
            if b is not None and b.is_inference():
                module._buffers[name] = known.setdefault(id(b), b.clone())
