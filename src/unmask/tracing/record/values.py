"""What one forward pass leaves behind: its operations, and the tensors that they were given and gave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .sites import Frame, Site


@dataclass
class Value:
    """A tensor at one moment of a run.

    **Fields**
    - `producer`: index of the operation that made it; -1 for constants, parameters and tensors of unknown origin.
    - `data`: what it held, as plain numbers.
    - `edge`: its place in autograd's graph at that moment, None without gradient.
    - `fixed`: identity of the tensor object, for constants (so that two ensemble members differ).
    """

    producer: int
    data: Tensor
    edge: GradientEdge | None = None
    version: int = 0
    fixed: int = 0
    from_input: bool = False


@dataclass
class Record:
    """One operation of a run.

    `saved_by_hooks`: what it keeps for the way back goes through `saved_tensors_hooks` of the user's.
    """

    index: int
    kind: str
    name: str
    call: Callable[..., Any]
    frames: list[Frame]
    site: Site
    inputs: list[Value]
    outputs: list[Value]
    scalars: tuple[Any, ...]
    plain: Any = None
    in_place: bool = False
    switched_off_at: Site | None = None
    key: tuple[str, str, int, int] = ("", "", 0, 0)
    saved_by_hooks: bool = False

    @property
    def group(self) -> tuple[str, str, int]:
        """Name and place, without the ordinal."""
        return self.key[:3]


@dataclass
class Trace:
    """A recorded run.

    **Fields**
    - `draws`: Python-level random calls: (index of the next operation, site).
    - `states`: of the random generators after the pass, as of `draws.generator_states`.
    - `differentiates`: the network takes gradients of its own.
    """

    records: list[Record]
    logits: Tensor
    x: Tensor
    draws: list[tuple[int, Site]]
    states: tuple[Any, ...] = ()
    differentiates: bool = False


def held(tensor: Tensor) -> Tensor:
    """A copy of what a tensor holds, as plain numbers: quantised and sparse ones know few operations."""
    tensor = tensor.detach()
    if tensor.is_meta:
        return torch.zeros(())  # it holds none
    if type(tensor) is not Tensor:
        tensor = _plain(tensor)
    if tensor.is_nested:
        return torch.cat([part.flatten() for part in tensor.unbind()])
    if tensor.is_quantized:
        return tensor.dequantize()
    if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
        return tensor.float()
    return tensor.clone() if tensor.layout == torch.strided else tensor.to_dense()


def _plain(tensor: Tensor) -> Tensor:
    """A subclass of `Tensor` as plain numbers; zero where it has no numbers of its own, as wrappers of others have."""
    with torch._C.DisableTorchFunctionSubclass():
        try:
            plain = tensor.as_subclass(Tensor)
            return plain if plain.data_ptr() or not plain.numel() else torch.zeros(())
        except RuntimeError:
            return torch.zeros(())


def constant(tensor: Tensor) -> Tensor:
    """What a weight holds: itself where it is stored in any special way, for such are not to be copied or converted."""
    if type(tensor.detach()) is Tensor and tensor.layout == torch.strided and not tensor.is_quantized:
        return held(tensor)
    return torch.zeros(())


def edge_of(tensor: Tensor) -> GradientEdge | None:
    """A tensor's place in autograd's graph; None without gradient."""
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def memory_of(tensor: Tensor) -> int:
    """Where a tensor is stored; 0 for what is stored in a special way."""
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout != torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
