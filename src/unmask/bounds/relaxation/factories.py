"""Each factory has the signature of the torch function that it translates, and makes its operation of ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_input

from ...errors import Unsupported
from .operations import Affine, Concatenation, MaxPool, Operation, Sum


@dataclass(frozen=True)
class Symbol:
    """A data-dependent tensor: its position in the graph and the shape of one example."""

    place: int
    shape: tuple[int, ...]


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def linear(x: Symbol, weight: Tensor, bias: Tensor | None = None) -> Affine:
    """As `torch.nn.functional.linear`."""
    return Affine(
        lambda v: v @ weight.T,
        lambda v: v @ weight.abs().T,
        bias,
        x.shape,
        lambda rows: rows @ weight,
    )


def conv2d(
    x: Symbol,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Affine:
    """As `torch.nn.functional.conv2d`."""
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}

    def transpose(rows: Tensor) -> Tensor:
        return conv2d_input((len(rows), *x.shape), weight, rows, **geometry)

    return Affine(
        lambda v: F.conv2d(v, weight, None, **geometry),
        lambda v: F.conv2d(v, weight.abs(), None, **geometry),
        None if bias is None else bias[:, None, None],
        x.shape,
        None if isinstance(padding, str) else transpose,
    )


def scale_and_shift(x: Symbol, scale: Tensor, shift: Tensor | None) -> Affine:
    """`scale * x + shift`, both broadcastable to one example with a batch dimension in front."""
    if torch.broadcast_shapes(scale.shape, (1, *x.shape)) != (1, *x.shape):
        raise Unsupported(
            f"an operation widens a tensor of shape {list(x.shape)} by one of {list(scale.shape)}"
        )
    if shift is not None and torch.broadcast_shapes(shift.shape, (1, *x.shape)) != (1, *x.shape):
        raise Unsupported(
            f"an operation widens a tensor of shape {list(x.shape)} by one of {list(shift.shape)}"
        )
    size = scale.abs()
    return Affine(lambda v: scale * v, lambda v: size * v, shift, x.shape, lambda rows: scale * rows)


def batch_norm(
    x: Symbol,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Affine:
    """As `torch.nn.functional.batch_norm`, in eval mode."""
    if training or running_mean is None or running_var is None:
        raise Unsupported("batch norm uses the batch's own statistics; bounds need network.eval()")
    scale = (running_var + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    shift = -running_mean * scale
    if bias is not None:
        shift = shift + bias
    channels = (1, -1, *[1] * (len(x.shape) - 1))
    return scale_and_shift(x, scale.reshape(channels), shift.reshape(channels))


def max_pool2d(
    x: Symbol,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> MaxPool:
    """As `torch.nn.functional.max_pool2d`."""
    if ceil_mode or return_indices or len(x.shape) != 3:
        raise Unsupported("bounds of max_pool2d need ceil_mode=False, return_indices=False and NCHW input")
    kernel = _pair(kernel_size)
    return MaxPool(
        kernel, kernel if stride is None else _pair(stride), _pair(padding), _pair(dilation), x.shape
    )


def dropout(x: Symbol, p: float = 0.5, training: bool = True, inplace: bool = False) -> Affine:
    """As `torch.nn.functional.dropout`, in eval mode: the identity."""
    if training:
        raise Unsupported("dropout is active; bounds need network.eval()")
    return rearrangement(x, lambda v: v)


def rearrangement(x: Symbol, function: Callable[[Tensor], Tensor]) -> Affine:
    """A linear map without negative coefficients: moving, copying, dropping and averaging elements."""
    return Affine(function, function, None, x.shape)


def add(a: Any, b: Any) -> Operation:
    """`a + b`."""
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        return _sum(a, b, 1.0)
    x, c = (a, b) if isinstance(a, Symbol) else (b, a)
    return scale_and_shift(x, torch.ones((), dtype=torch.float64), _constant(c))


def sub(a: Any, b: Any) -> Operation:
    """`a - b`."""
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        return _sum(a, b, -1.0)
    if isinstance(a, Symbol):
        return scale_and_shift(a, torch.ones((), dtype=torch.float64), -_constant(b))
    return scale_and_shift(b, -torch.ones((), dtype=torch.float64), _constant(a))


def mul(a: Any, b: Any) -> Operation:
    """`a * b`, one of them constant."""
    if isinstance(a, Symbol) and isinstance(b, Symbol):
        raise Unsupported("the product of two data-dependent tensors has no bound here")
    x, c = (a, b) if isinstance(a, Symbol) else (b, a)
    return scale_and_shift(x, _constant(c), None)


def truediv(a: Any, b: Any) -> Operation:
    """`a / b`, with a constant divisor."""
    if not isinstance(a, Symbol) or isinstance(b, Symbol):
        raise Unsupported("division by a data-dependent tensor has no bound here")
    return scale_and_shift(a, 1 / _constant(b), None)


def neg(x: Symbol) -> Operation:
    """`-x`."""
    return mul(x, -1.0)


def cat(tensors: Any, dim: int = 0) -> Operation:
    """As `torch.cat`, of data-dependent tensors alone and not along the batch."""
    symbols = _all_symbols(tensors)
    place = _axis(dim, 1 + len(symbols[0].shape))
    return Concatenation(place, tuple(s.shape[place - 1] for s in symbols))


def stack(tensors: Any, dim: int = 0) -> Operation:
    """As `torch.stack`, under the same conditions."""
    symbols = _all_symbols(tensors)
    return Concatenation(_axis(dim, 2 + len(symbols[0].shape)), (1,) * len(symbols), new_axis=True)


def hstack(tensors: Any) -> Operation:
    """As `torch.hstack`."""
    return cat(tensors, 1)


def _all_symbols(tensors: Any) -> list[Symbol]:
    if not isinstance(tensors, tuple | list) or not all(isinstance(t, Symbol) for t in tensors):
        raise Unsupported("joining a tensor that does not depend on the data has no bound here")
    return list(tensors)


def _axis(dim: int, dims: int) -> int:
    if dim % dims == 0:
        raise Unsupported("joining along the batch has no bound here: each example is bounded by itself")
    return dim % dims


def _constant(value: Any) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _sum(a: Symbol, b: Symbol, sign: float) -> Sum:
    if a.shape != b.shape:
        raise Unsupported(
            f"the sum of tensors of shapes {list(a.shape)} and {list(b.shape)} has no bound here"
        )
    return Sum(sign)
