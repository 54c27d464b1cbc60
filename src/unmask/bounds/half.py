"""Backward passes in bfloat16, behind forward passes that stay as they are."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_CONVOLUTION = torch.ops.aten.convolution_backward.default
_PRODUCT = torch.ops.aten.mm.default
# A first layer: torch's own backward pass is slow for so few channels, and phases cost less than they save.
_FEW_CHANNELS = 4


class HalfBackward(TorchDispatchMode):
    """Around a backward pass: convolutions' and linear layers' input gradients are computed in bfloat16.

    The forward pass decided every ReLU's sign and every pool's winner in float32 already, so that only the arithmetic
    of the chain rule is rounded (to eight bits, summed in float32); bfloat16 has float32's range of normal numbers.
    Where large terms cancel the result may be far off: compare. Parameters get no gradient; other operations and
    other dtypes are left alone. The first use costs a second, because torch then imports its compiler.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _CONVOLUTION and args[0].dtype == torch.float32:
            slopes, inputs, weight, *geometry, _ = args
            slopes, weight = slopes.bfloat16(), weight.bfloat16()
            _, stride, padding, dilation, transposed, _, groups = geometry
            plain = stride[0] == stride[-1] > 1 and max(dilation) == groups == 1 and not transposed
            if plain and inputs.ndim == 4 and inputs.shape[1] <= _FEW_CHANNELS:
                return _by_phases(slopes, inputs, weight, stride[0], padding).float(), None, None
            shape = inputs.new_empty(inputs.shape, dtype=torch.bfloat16)  # only its shape is read
            return func(slopes, shape, weight, *geometry, [True, False, False])[0].float(), None, None
        if func is _PRODUCT and args[0].dtype == torch.float32:
            return func(args[0].bfloat16(), args[1].bfloat16()).float()
        return func(*args, **(kwargs or {}))


def _by_phases(slopes: Tensor, inputs: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Tensor:
    """The input's gradient of a strided convolution of few channels, as one convolution without stride.

    Pixels whose places agree modulo the stride see the same taps of the kernel: each such phase is an output channel.
    """
    front = [-p % stride for p in padding]  # zeros before the kernel, so that its first tap begins a phase
    taps = [-(-(k + f) // stride) for k, f in zip(weight.shape[2:], front, strict=True)]
    back = [n * stride - k - f for n, k, f in zip(taps, weight.shape[2:], front, strict=True)]
    kernel = F.pad(weight, (front[1], back[1], front[0], back[0]))
    kernel = kernel.reshape(*weight.shape[:2], taps[0], stride, taps[1], stride).flip(2, 4)
    kernel = kernel.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    around = []
    for axis in (1, 0):
        first = (padding[axis] + front[axis]) // stride
        count = -(-inputs.shape[2 + axis] // stride)
        around += [taps[axis] - 1 - first, count + first - slopes.shape[2 + axis]]
    phases = F.conv2d(F.pad(slopes, around), kernel)
    return F.pixel_shuffle(phases, stride)[..., : inputs.shape[2], : inputs.shape[3]]
