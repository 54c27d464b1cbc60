"""Backward passes in bfloat16, behind forward passes that stay as they are."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_CONVOLUTION = torch.ops.aten.convolution_backward.default
_PRODUCT = torch.ops.aten.mm.default


class HalfBackward(TorchDispatchMode):
    """Around a backward pass: convolutions' and linear layers' input gradients are computed in bfloat16.

    The forward pass decided every ReLU's sign and every pool's winner in float32 already, so that only the arithmetic
    of the chain rule is rounded (to eight bits, summed in float32), and bfloat16 has float32's range: nothing
    underflows that did not before. Parameters get no gradient; other operations and other dtypes are left alone.
    The first use costs a second, because torch then imports its compiler.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is _CONVOLUTION and args[0].dtype == torch.float32:
            slopes, inputs, weight, *geometry, _ = args
            shape = inputs.new_empty(inputs.shape, dtype=torch.bfloat16)  # only its shape is read
            found = func(slopes.bfloat16(), shape, weight.bfloat16(), *geometry, [True, False, False])[0]
            return found.float(), None, None
        if func is _PRODUCT and args[0].dtype == torch.float32:
            return func(args[0].bfloat16(), args[1].bfloat16()).float()
        return func(*args, **(kwargs or {}))
