"""Gradients whose forward pass stays as it is and whose backward pass runs in bfloat16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .half_rules import RULES, Weights

# A step back: from the slopes at an operation's output to those at each of its inputs.
Back = Callable[[Tensor], "tuple[Tensor, ...]"]

_HARMLESS = {"memory_format"}  # the only argument by name that no rule needs to read


def _channels_last(x: Tensor) -> Tensor:
    """The same values in the layout in which convolutions in bfloat16 are faster. Always another tensor object."""
    if x.ndim != 4:
        return x.view_as(x)
    if x.shape[1] == 1 and x.is_contiguous():  # the same memory, but torch goes by the strides
        return x.as_strided(x.shape, (x[0].numel(), 1, x.shape[3], 1))
    return torch.empty_like(x, memory_format=torch.channels_last).copy_(x)


class HalfTape(TorchDispatchMode):
    """Around a forward pass from `start(x)`: records it, to go back through it in bfloat16.

    The forward pass is computed in float32 as ever, so that every ReLU keeps its sign and every pool its winner; only
    the chain rule's arithmetic is rounded, to eight bits, summed in float32. bfloat16 has float32's range of normal
    numbers. Nothing is converted between one operation and the next, of an activation one bfloat16 number per element
    is kept, and autograd is not used. Where large terms cancel the result may be far off, and of a cut or a backward of
    the network's own (`detach`, `autograd.Function`) the tape knows nothing: compare with autograd.

    **Fields**
    - `unknown`: the first operation on the way from `x` that the tape cannot go back through, or None. Then, and where
      the network is not in float32, there is no gradient.

    The first use costs a second, because torch then imports its compiler.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unknown: Any = None
        self._weights = Weights()
        self._steps: list[tuple[list[int], Back]] = []
        self._pass = object()

    def start(self, x: Tensor) -> Tensor:
        """Forgets the last pass, and returns `x` `[batch, *dims]` as the network should be given it."""
        self.unknown = None
        self._steps = [([], lambda g: ())]  # the first is the input
        self._pass = object()
        x = _channels_last(x)
        self._mark(x, 0)
        return x

    def _mark(self, tensor: Any, place: int) -> None:
        # Kept by the tensor itself, so that the tape keeps no tensor alive.
        tensor._half_tape = (self._pass, place)

    def _place(self, value: Any) -> int | None:
        """Which step made a tensor; None for a value that does not depend on `x`."""
        recorded, place = getattr(value, "_half_tape", (None, None))
        return place if recorded is self._pass else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        data, parents = [], []
        hidden = False  # behind a list or a name, where no rule looks
        for argument in args:
            if isinstance(argument, Tensor):
                place = self._place(argument)
                if place is not None:
                    data.append(argument)
                    parents.append(place)
            elif isinstance(argument, (list, tuple)):
                hidden |= any(self._place(a) is not None for a in argument)
        for argument in kwargs.values():
            hidden |= self._place(argument) is not None
        out = func(*args, **kwargs)
        result = out[0] if isinstance(out, tuple) else out
        decides = (
            isinstance(result, Tensor) and result.dtype == torch.bool
        )  # no slope passes through an answer
        if (data or hidden) and self.unknown is None and not decides:
            back = None
            if func in RULES and not hidden and kwargs.keys() <= _HARMLESS and result.dtype == torch.float32:
                back = RULES[func](out, args, data, self._weights)
            if back is None:
                self.unknown = func
            else:
                self._mark(result, len(self._steps))
                self._steps.append((parents, back))
        return out

    def knows(self, logits: Tensor) -> bool:
        """Whether there is a gradient of these logits."""
        return self.unknown is None and self._place(logits) is not None

    def gradient(self, logits: Tensor, slopes: Tensor) -> Tensor:
        """The gradient at `x` of the sum of `slopes * logits`, both `[batch, classes]`, in bfloat16."""
        last = self._place(logits)
        assert last is not None
        found: dict[int, Tensor] = {last: slopes.bfloat16()}
        for place in range(last, 0, -1):
            if place in found:
                parents, back = self._steps[place]
                for parent, slope in zip(parents, back(found.pop(place)), strict=True):
                    found[parent] = found[parent] + slope if parent in found else slope
        return found[0]
