"""From torch's operations to ours: by the name of a function, or by the type of a module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from ...errors import Unsupported
from .factories import (
    Symbol,
    add,
    batch_norm,
    cat,
    conv2d,
    dropout,
    hstack,
    linear,
    max_pool2d,
    mul,
    neg,
    rearrangement,
    stack,
    sub,
    truediv,
)
from .operations import RELU, SIGMOID, TANH, Operation


def activation(operation: Operation) -> Callable[..., Operation]:
    """A factory that ignores its arguments."""

    def factory(x: Symbol, inplace: bool = False) -> Operation:
        return operation

    return factory


FACTORIES: dict[str, Callable[..., Operation]] = {
    "linear": linear,
    "conv2d": conv2d,
    "batch_norm": batch_norm,
    "max_pool2d": max_pool2d,
    "dropout": dropout,
    "dropout2d": dropout,
    "relu": activation(RELU),
    "relu_": activation(RELU),
    "sigmoid": activation(SIGMOID),
    "tanh": activation(TANH),
    **dict.fromkeys(("add", "iadd"), add),
    **dict.fromkeys(("sub", "isub"), sub),
    **dict.fromkeys(("mul", "imul"), mul),
    **dict.fromkeys(("truediv", "div", "itruediv"), truediv),
    "neg": neg,
    **dict.fromkeys(("cat", "concat", "concatenate"), cat),
    "stack": stack,
    **dict.fromkeys(("hstack", "column_stack"), hstack),
}

# Linear without negative coefficients whatever their arguments; run as they stand in the trace.
REARRANGEMENTS = frozenset(
    "mean sum avg_pool2d adaptive_avg_pool2d getitem permute transpose squeeze unsqueeze contiguous clone".split()
)
# The same, but only their output's shape matters, so that a batch size written into the trace does no harm.
RESHAPES = frozenset("flatten view reshape".split())


def of_module(module: nn.Module, x: Symbol) -> Operation:
    """The operation of one of torch's own modules, whose tensors are float64 by now."""
    match module:
        case nn.Linear():
            return linear(x, module.weight, module.bias)
        case nn.Conv2d(padding_mode="zeros"):
            m = module
            return conv2d(x, m.weight, m.bias, m.stride, m.padding, m.dilation, m.groups)
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            m = module
            batch_statistics = m.training or not m.track_running_stats
            return batch_norm(
                x, m.running_mean, m.running_var, m.weight, m.bias, batch_statistics, 0.0, m.eps
            )
        case nn.ReLU():
            return RELU
        case nn.Sigmoid():
            return SIGMOID
        case nn.Tanh():
            return TANH
        case nn.MaxPool2d():
            m = module
            return max_pool2d(
                x, m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
            )
        case nn.Dropout() | nn.Dropout2d():
            return dropout(x, training=module.training)
        case nn.Flatten(start_dim=1, end_dim=-1):
            return rearrangement(x, partial(torch.flatten, start_dim=1))
        case nn.AvgPool2d() | nn.AdaptiveAvgPool2d() | nn.Identity() | nn.ZeroPad2d():
            return rearrangement(x, module)
        case nn.Upsample(mode="nearest" | "bilinear"):
            return rearrangement(x, module)
    raise Unsupported(
        f"the layer `{type(module).__name__}` has no bound here; see unmask.bounds.relaxation.translate"
    )
