"""A change to every activation of a network, however it is spelled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..classifier import Network
from ..errors import UnusableInput
from ..tracing.intercept.operations import tensors_in
from .activation_places import CURVED, Place, activations_of, place_of, plain_name, put_back, randomness


class ActivationsChanged(nn.Module):
    """A network whose every activation goes through `change` before the next layer sees it.

    The activations are looked up on the first pass, and again where a pass goes through code that was not seen
    before. Not covered: soft-max, pooling. Code that is compiled runs as Python.

    **Raises** `UnusableInput` where a part is scripted, or where there is no activation to change.
    """

    def __init__(self, network: Network, change: nn.Module):
        super().__init__()
        self.network = network
        self.change = change
        self._places: frozenset[Place] = frozenset()
        self._seen: frozenset[Place] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """The network's own outputs, with changed activations on the way."""
        with torch.compiler.set_stance("force_eager"):
            if self._seen is None:
                self._look(x)
            changing = _Changing(self.change, self._places, self._seen or frozenset())
            before = randomness()
            with changing:
                made = self.network(x)
            if changing.unknown:  # another branch of the code: once more, with its activations known
                self._places |= changing.unknown & activations_of(self.network, x)[0]
                self._seen = (self._seen or frozenset()) | changing.unknown
                if self._places & changing.unknown:
                    put_back(before)
                    with _Changing(self.change, self._places, self._seen):
                        made = self.network(x)
        return made  # type: ignore[return-value]

    def _look(self, x: Tensor) -> None:
        scripted = _scripted(self.network)
        if scripted:
            raise UnusableInput(
                f"{scripted} is scripted, so that its activations cannot be changed; give the network as Python code"
            )
        self._places, self._seen = activations_of(self.network, x)
        if not self._places:
            raise UnusableInput(
                "the network has no activation that could be pruned or dropped: no element-wise operation of its "
                "forward pass bends anything; give the network as Python code of torch operations"
            )


def _scripted(network: Network) -> str:
    """The name of the first part that is TorchScript, or nothing."""
    if isinstance(network, torch.jit.ScriptModule | torch.jit.ScriptFunction):
        return "the network"
    if isinstance(network, nn.Module):
        for name, part in network.named_modules():
            if isinstance(part, torch.jit.ScriptModule):
                return f"the part {name!r} of the network"
    return ""


class _Changing(TorchFunctionMode):
    """Changes what comes out of the operations at these places. `unknown` are places that nobody has seen yet."""

    def __init__(self, change: Callable[[Tensor], Tensor], places: frozenset[Place], seen: frozenset[Place]):
        super().__init__()
        self.change, self.places, self.seen = change, places, seen
        self.unknown: set[Place] = set()
        self.names = {name for name, _ in places}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        # While this runs the mode is off, so that F.relu, which calls torch.relu, counts once.
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        name = plain_name(func)
        if name not in CURVED and name not in self.names:
            return made
        place = place_of(name)
        if place not in self.places:
            if place not in self.seen:
                self.unknown.add(place)
            return made
        if name == "setitem":
            args[0].copy_(self.change(args[0].clone()))
            return made
        if made.dtype.is_floating_point:
            if any(
                made is t for t in tensors_in((args, kwargs))
            ):  # in place: whoever holds it sees the change
                return made.copy_(self.change(made.clone()))
            return self.change(made)
        return made
