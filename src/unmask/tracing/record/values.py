"""What one forward pass leaves behind: its operations, and the tensors that they were given and gave."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ..intercept.sites import Frame, Site

# Name, file or module, line, and how often that was there before: under this an operation is found in another run.
Key = tuple[str, str, int, int]
# Most elements of a tensor that is kept whether or not anybody will ask for it. Ours.
SMALL = 1024
# Numbers that a digest takes at a time, and an odd number that tells blocks apart.
_BLOCK, _STEP = 65536, 0x9E3779B97F4A7C15
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int32}


@dataclass(eq=False)
class Value:
    """A tensor at one moment of a run: what it looked like, and what it held where a rule may ask for that.

    **Fields**
    - `producer`: index of the operation that made it; -1 for constants, parameters and tensors of unknown origin.
    - `shape`, `dtype`, `device`: as plain numbers (`seen`).
    - `edge`: its place in autograd's graph at that moment, None without gradient or once the graph was let go.
    - `fixed`: identity of the tensor object, for constants (so that two ensemble members differ).
    - `kept`: what it held, as plain numbers; None where only its digest was kept.
    - `heard`: elements that a loss depends on to first order; None for all, or where nobody asked.
    - `let_go`: it had a place in autograd's graph, which is gone; `was_leaf`: it was one of the graph's leaves.
    """

    producer: int
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    edge: GradientEdge | None = None
    version: int = 0
    fixed: int = 0
    from_input: bool = False
    kept: Tensor | None = None
    heard: Tensor | None = None
    let_go: bool = False
    was_leaf: bool = False
    _print: int | None = None

    @property
    def data(self) -> Tensor:
        """What it held; to be asked only where the recording was told to keep it."""
        assert self.kept is not None, "nobody told the recording to keep this tensor"
        return self.kept

    @property
    def print(self) -> int:
        """A digest of what it held."""
        if self._print is None:
            self._print = digest(self.data)
        return self._print

    @property
    def carries(self) -> bool:
        """Whether a gradient leads back from it."""
        return self.edge is not None or self.let_go

    @property
    def leaf(self) -> bool:
        """Whether the graph begins here, as at a weight."""
        return self.was_leaf if self.edge is None else self.edge.node.name().endswith("AccumulateGrad")

    @property
    def floating(self) -> bool:
        """Whether it holds real numbers."""
        return self.dtype.is_floating_point

    @property
    def size(self) -> int:
        """How many bytes it held."""
        return self.shape.numel() * self.dtype.itemsize

    def forget(self) -> None:
        """Keeps the digest alone of what is large, and is no weight, which costs nothing."""
        if self.kept is not None and not self.fixed and self.shape.numel() > SMALL:
            self._print = self.print
            self.kept = None
        self.heard = None

    def keep(self, tensor: Tensor) -> None:
        """Keeps what a tensor holds now, which must be what this stands for."""
        if self.kept is None:
            self.kept = held(tensor)


def value_of(tensor: Tensor, producer: int, edge: GradientEdge | None, **more: Any) -> Value:
    """A tensor as it is now. Of what is large the digest is kept; whoever wants more calls `Value.keep`."""
    now = seen(tensor)
    small = now.numel() <= SMALL
    return Value(
        producer,
        now.shape,
        now.dtype,
        now.device,
        edge,
        tensor._version,
        kept=held(tensor) if small else None,
        _print=None if small else digest(now),
        **more,
    )


def weight_of(tensor: Tensor, edge: GradientEdge | None) -> Value:
    """A weight that the network leaves alone, looked at where it is."""
    data = tensor.detach()
    return Value(-1, data.shape, data.dtype, data.device, edge, tensor._version, fixed=id(tensor), kept=data)


@dataclass
class Record:
    """One operation of a run.

    `kind`: `torch`, `function` (an `autograd.Function`), one of `CLOSED`, `hook` (of a module or tensor), `source`.
    `saved_by_hooks`: what it keeps for the way back goes through `saved_tensors_hooks` of the user's.
    `began`: index of the first operation seen inside it, such as a custom function in an operator; its own for none.
    `shares`: scores and shares of the soft-maxes inside attention, where its tensors are kept.
    """

    index: int
    kind: str
    name: str
    frames: list[Frame]
    site: Site
    inputs: list[Value]
    outputs: list[Value]
    scalars: tuple[Any, ...]
    plain: Any = None
    in_place: bool = False
    switched_off_at: Site | None = None
    key: Key = ("", "", 0, 0)
    saved_by_hooks: bool = False
    began: int = 0
    shares: list[tuple[Tensor, Tensor]] = field(default_factory=list)

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
    - `seed`: under which it ran.
    """

    records: list[Record]
    logits: Tensor
    x: Tensor
    draws: list[tuple[int, Site]]
    states: tuple[Any, ...] = ()
    differentiates: bool = False
    seed: int = 0

    @property
    def size(self) -> int:
        """Bytes of all results, were they kept."""
        return sum(v.size for r in self.records for v in r.outputs)


def seen(tensor: Tensor) -> Tensor:
    """A tensor as plain numbers, without a copy where it is stored as such: others know few operations."""
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
    return tensor if tensor.layout == torch.strided else tensor.to_dense()


def held(tensor: Tensor) -> Tensor:
    """A copy of what a tensor holds, as plain numbers."""
    now = seen(tensor)
    return now.clone() if tensor.layout == torch.strided and not tensor.is_nested else now


def digest(data: Tensor) -> int:
    """A number that tells plain tensors apart as `torch.equal` does, NaN being 0: equal ones have equal digests.

    The sum, modulo 2^64, of the numbers' bits times odd weights that depend on their place and were drawn once: of
    tensors that differ, one pair in 2^32 or fewer has the same.
    """
    flat = torch.view_as_real(data.resolve_conj()).reshape(-1) if data.is_complex() else data.reshape(-1)
    total = hash((data.shape, data.dtype))
    for n, part in enumerate(flat.split(_BLOCK)):
        if part.is_floating_point():
            part = part.nan_to_num() + 0.0  # minus zero is zero
        if part.dtype.itemsize > 1:
            part = part.contiguous().view(_BITS[part.dtype.itemsize])
        total += int((part.to(torch.int64) * _weights(part.device)[: len(part)]).sum()) * (2 * n + 1) * _STEP
    return total % 2**64


@cache
def _weights(device: torch.device) -> Tensor:
    # Numbers of eight bytes count as two.
    generator = torch.Generator().manual_seed(0)
    return (torch.randint(-(2**62), 2**62, (2 * _BLOCK,), generator=generator) * 2 + 1).to(device)


def _plain(tensor: Tensor) -> Tensor:
    """A subclass of `Tensor` as plain numbers; zero where it has no numbers of its own, as wrappers of others have."""
    with torch._C.DisableTorchFunctionSubclass():
        try:
            plain = tensor.as_subclass(Tensor)
            return plain if plain.data_ptr() or not plain.numel() else torch.zeros(())
        except RuntimeError:
            return torch.zeros(())


def constant(tensor: Tensor) -> Tensor:
    """What a weight holds; zero where it is stored in any special way, for such are not to be copied or converted."""
    if type(tensor.detach()) is Tensor and tensor.layout == torch.strided and not tensor.is_quantized:
        return tensor.detach()
    return torch.zeros(())


def edge_of(tensor: Tensor) -> GradientEdge | None:
    """A tensor's place in autograd's graph; None without gradient."""
    return get_gradient_edge(tensor) if tensor.requires_grad else None


def memory_of(tensor: Tensor) -> int:
    """Where a tensor is stored; 0 for what is stored in a special way."""
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer) or tensor.layout != torch.strided:
        return 0
    return tensor.untyped_storage().data_ptr()
