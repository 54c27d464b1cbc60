"""Layers on quantised tensors, whose weights are packed for integer kernels: the same layer in floating point.

Their arguments are the tensor, the packed weights or a second tensor, then scale and zero point of what is returned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import Call
from .shadow import Made, names

Args = tuple[Any, ...]
Named = dict[str, Any]


def layer(x: Tensor, packed: Any) -> Tensor | None:
    """A linear or convolutional layer with the weights that were packed, `x` in floating point."""
    weight, bias = packed.unpack()
    weight = weight.dequantize() if weight.is_quantized else weight
    if not hasattr(packed, "stride"):
        return F.linear(x, weight.to(x), bias)
    if packed.transpose():
        return None
    places = x.ndim - 2
    convolve = (F.conv1d, F.conv2d, F.conv3d)[places - 1]
    moves = (list(of())[-places:] for of in (packed.stride, packed.padding, packed.dilation))
    stride, padding, dilation = moves
    weight = weight.squeeze(2) if weight.ndim > x.ndim else weight  # one place is packed as two
    return convolve(x, weight.to(x), bias, stride, padding, dilation, packed.groups())


def dynamic(width: float, args: Args, kwargs: Named) -> Tensor | None:
    """A layer that takes and returns floats and is quantised inside."""
    return layer(args[0], args[1]) if hasattr(args[1], "unpack") else None


def _layer(call: Call) -> Tensor | None:
    if len(call.args) < 2 or not hasattr(call.args[1], "unpack"):
        made = call.func(*call.plain, **call.named)
        return made if isinstance(made, Tensor) else None
    return layer(call.plain[0], call.args[1])


def _of_two(combine: Callable[[Any, Any], Tensor]) -> Callable[[Call], Made]:
    def rule(call: Call) -> Made:
        if isinstance(call.args[0], Tensor) and call.args[0].is_quantized:
            return combine(*(a.dequantize() if stored(a) else a for a in call.plain[:2]))
        made = call.func(*call.plain, **call.named)
        return made if isinstance(made, Tensor) else None

    return rule


def stored(item: Any) -> bool:
    """Whether it is a quantised tensor."""
    return isinstance(item, Tensor) and item.is_quantized


def _rectified(rule: Callable[[Call], Made]) -> Callable[[Call], Made]:
    def after(call: Call) -> Made:
        made = rule(call)
        return made.relu() if isinstance(made, Tensor) else None

    return after


# By `op_name`, on tensors that are quantised.
LAYERS: dict[str, Callable[[Call], Made]] = {
    **names(_layer, "linear conv1d conv2d conv3d"),
    **names(_rectified(_layer), "linear_relu conv1d_relu conv2d_relu conv3d_relu"),
    **names(_of_two(torch.add), "add"),
    **names(_of_two(torch.mul), "mul"),
    **names(_rectified(_of_two(torch.add)), "add_relu"),
    **names(_rectified(_of_two(torch.mul)), "mul_relu"),
}
