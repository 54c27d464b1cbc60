"""What is known of the tensors that go by: where each came from, and whether its numbers are still those."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.utils.weak import TensorWeakRef

from .compare import equal
from .shadows import Shadows
from .values import Value, constant, edge_of, memory_of, value_of, weight_of


class Known:
    """The values of one forward pass by the tensors that hold them, which the user's code may write into meanwhile.

    **Arguments**
    - `written`: memory of weights that the network overwrites in each pass.
    """

    def __init__(self, network: Any, x: Tensor, shadows: Shadows, written: Collection[int]):
        self._shadows = shadows
        stored = (*network.parameters(), *network.buffers()) if isinstance(network, nn.Module) else ()
        # Weights that the network leaves alone are looked at where they are.
        self._kept = {id(t) for t in stored if memory_of(t) and memory_of(t) not in written}
        self._now: dict[int, Value] = {id(x): value_of(x, -1, edge_of(x), from_input=True)}
        self._there: dict[int, TensorWeakRef] = {id(x): TensorWeakRef(x)}
        # What came from elsewhere, or was written into: its identity, or its address, must stay its own.
        self._alive: list[Tensor] = [x]
        self._writers: dict[int, int] = {}  # of memory: the last operation that wrote into it
        self._lent: set[int] = set()  # memory that others can write into unseen
        self._seen_at: dict[int, int] = {}

    def value(self, tensor: Tensor, last: int) -> Value:
        """What a tensor holds now, after the operation of index `last`."""
        value = self._of(tensor)
        writer = self._writers.get(memory_of(tensor), -1) if self._writers else -1
        if writer >= 0 and writer > (
            self._seen_at.get(id(tensor), -1)
        ):  # in another name for the same memory
            value = value_of(tensor, writer, self._edge(tensor))
        elif value is None:
            edge = self._edge(tensor)
            self._alive.append(tensor)
            if id(tensor) in self._kept:
                value = weight_of(tensor, edge)
            else:
                value = replace(
                    value_of(constant(tensor), -1, edge), version=tensor._version, fixed=id(tensor)
                )
        elif value.version != tensor._version:  # written through a view
            value = value_of(tensor, value.producer, self._edge(tensor))
        elif self._overwritten(tensor, value):
            value = value_of(tensor, -1, self._edge(tensor), fixed=id(tensor))
        elif value.edge is None and tensor.requires_grad:  # made a leaf of its own since
            value = replace(value, edge=self._edge(tensor))
        else:
            return value
        self.remember(tensor, value)
        self._seen_at[id(tensor)] = last
        return value

    def remember(self, tensor: Tensor, value: Value) -> None:
        """Notes what a tensor holds."""
        self._now[id(tensor)], self._there[id(tensor)] = value, TensorWeakRef(tensor)

    def made(self, tensor: Tensor, index: int) -> None:
        """Notes that the operation of that index made what a tensor holds."""
        self._seen_at[id(tensor)] = index

    def wrote(self, tensor: Tensor, index: int) -> None:
        """Notes that the operation of that index wrote into a tensor's memory."""
        if memory_of(tensor):
            self._writers[memory_of(tensor)] = index
            self._alive.append(tensor)

    def lend(self, tensors: Iterable[Tensor]) -> None:
        """Notes that others can write into the tensors' memory unseen."""
        self._lent |= {memory_of(tensor) for tensor in tensors}

    def _edge(self, tensor: Tensor) -> GradientEdge | None:
        return edge_of(self._shadows.of(tensor))

    def _of(self, tensor: Tensor) -> Value | None:
        """What is known of a tensor, unless it was known of another one whose identity it has inherited."""
        there = self._there.get(id(tensor))
        if there is not None and there() is tensor:
            return self._now[id(tensor)]
        self._seen_at.pop(id(tensor), None)
        return None

    def _overwritten(self, tensor: Tensor, value: Value) -> bool:
        """Whether somebody wrote into it past torch, which keeps count of its own writes alone."""
        memory = memory_of(tensor)
        return memory != 0 and memory in self._lent and not equal(value_of(tensor, -1, None), value)
