"""How slopes pass back through torch's operations in bfloat16; see `HalfTape`.

Each rule is given an operation's result, its arguments, and which of them depend on the input. It returns the step
back, from the slopes at the result to those at each of these arguments, or None where it cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

aten = torch.ops.aten
# Up to so many channels a strided convolution goes back by phases; above, torch's own backward pass is faster.
_FEW_CHANNELS = 32


class Weights:
    """Parameters as the way back needs them, made ready once for many passes."""

    def __init__(self) -> None:
        self._ready: dict[Any, tuple[Tensor, int, Any]] = {}

    def ready(self, weight: Tensor, make: Callable[[], Any], form: Any = None) -> Any:
        """`make()`, or what it gave for the same parameter, unchanged since, and `form`."""
        owner = weight if weight._base is None else weight._base
        if not isinstance(owner, nn.Parameter):
            return make()
        key = (id(owner), weight.shape, weight.stride(), form)
        known = self._ready.get(key)
        if known is None or known[1] != owner._version:
            # With its owner, so that no other takes its id.
            known = self._ready[key] = (owner, owner._version, make())
        return known[2]


class Phases:
    """The way back through a convolution, as one convolution without stride: torch's own is slower for few channels.

    Pixels whose places agree modulo the stride see the same taps of the kernel: each such phase of each channel is a
    channel of the result, from which the pixels are put in order.
    """

    def __init__(self, size: torch.Size, weight: Tensor, stride: int, padding: list[int]):
        self.size, self.channels, self.stride = size, weight.shape[1], stride
        # Zeros before the kernel, so that its first tap begins a phase.
        front = [-p % stride for p in padding]
        taps = [-(-(k + f) // stride) for k, f in zip(weight.shape[2:], front, strict=True)]
        back = [n * stride - k - f for n, k, f in zip(taps, weight.shape[2:], front, strict=True)]
        kernel = F.pad(weight.bfloat16(), (front[1], back[1], front[0], back[0]))
        kernel = kernel.reshape(*weight.shape[:2], taps[0], stride, taps[1], stride).flip(2, 4)
        # [phases * channels, channels of the slopes, taps]
        kernel = kernel.permute(3, 5, 1, 0, 2, 4).flatten(0, 2)
        self.kernel = kernel.contiguous(memory_format=torch.channels_last)
        self.before = [t - 1 - (p + f) // stride for t, p, f in zip(taps, padding, front, strict=True)]
        self.after = [
            -(-n // stride) + (p + f) // stride for n, p, f in zip(size, padding, front, strict=True)
        ]

    def __call__(self, slopes: Tensor) -> tuple[Tensor]:
        around = []  # zeros before and after the slopes; where negative, slopes that no pixel needs
        for axis in (1, 0):
            around += [self.before[axis], self.after[axis] - slopes.shape[2 + axis]]
        if around[0] == around[1] >= 0 and around[2] == around[3] >= 0:
            phases = F.conv2d(slopes, self.kernel, padding=(around[2], around[0]))
        else:
            phases = F.conv2d(F.pad(slopes, around), self.kernel)
        if self.stride == 1:
            return (phases,)
        (high, wide), stride = phases.shape[2:], self.stride
        pixels = phases.permute(0, 2, 3, 1).reshape(-1, high, wide, stride, stride, self.channels)
        pixels = pixels.transpose(2, 3).reshape(-1, high * stride, wide * stride, self.channels)
        return (pixels.permute(0, 3, 1, 2)[:, :, : self.size[0], : self.size[1]],)


def _convolution(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    x, weight, _, stride, padding, dilation, transposed, output_padding, groups = args
    if len(data) > 1 or data[0] is not x:
        return None
    plain = stride[0] == stride[-1] and max(dilation) == groups == 1 and not transposed and x.ndim == 4
    if plain and (stride[0] == 1 or x.shape[1] <= _FEW_CHANNELS):
        form = (x.shape[2:], stride[0], *padding)
        return weights.ready(weight, lambda: Phases(x.shape[2:], weight, stride[0], padding), form)
    half = weights.ready(weight, weight.bfloat16)
    like = torch.empty_like(x, dtype=torch.bfloat16)  # only its shape and strides are read
    geometry = (stride, padding, dilation, transposed, output_padding, groups, [True, False, False])
    return lambda g: (aten.convolution_backward(g, like, half, None, *geometry)[0],)


def _product(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    x, weight = args[-2:]
    if len(data) > 1 or data[0] is not x:
        return None
    rows = weights.ready(weight, lambda: weight.t().bfloat16())
    return lambda g: (g @ rows,)


def _relu(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    kept = out.bfloat16()
    return lambda g: (aten.threshold_backward(g, kept, 0),)


def _sigmoid(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    slope = (out * (1 - out)).bfloat16()
    return lambda g: (g * slope,)


def _tanh(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    slope = (1 - out * out).bfloat16()
    return lambda g: (g * slope,)


def _reshape(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    shape = args[0].shape
    return lambda g: (g.reshape(shape),)


def _copy(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    last = out.ndim == 4 and args[0].is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return lambda g: (g.contiguous(memory_format=layout),)


def _alias(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    return lambda g: (g,)


def _restride(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    # Adaptive pooling to one pixel rewrites the strides of dimensions of size 1.
    return (lambda g: (g,)) if out.is_contiguous() and out.shape[2:] == (1, 1) else None


def _sum(sign: float) -> Callable[..., Any]:
    def rule(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
        if len(args) > 2 or any(a.shape != out.shape for a in data):
            return None
        signs = [sign if a is args[1] else 1.0 for a in data]
        return lambda g: tuple(g if s == 1 else -g for s in signs)

    return rule


def _negated(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    return (lambda g: (-g,)) if len(args) == 2 else None


def _scaled(invert: bool) -> Callable[..., Any]:
    def rule(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
        x, other = args if data[0] is args[0] else args[::-1]
        if len(data) > 1 or out.shape != x.shape or (invert and x is not args[0]):
            return None
        scale = torch.as_tensor(other, dtype=torch.float32, device=out.device)
        scale = (1 / scale if invert else scale).bfloat16()
        return lambda g: (g * scale,)

    return rule


def _batch_norm(out: Any, args: Any, data: list[Tensor], weights: Weights) -> Any:
    _, weight, _, _, variance, *training, _, eps = args
    if len(data) > 1 or any(training):
        return None
    scale = (variance + eps).rsqrt() * (1 if weight is None else weight)
    scale = scale.bfloat16().reshape(-1, *[1] * (args[0].ndim - 2))
    return lambda g: (g * scale,)


def _max_pool(out: Any, args: Any, data: list[Tensor], weights: Weights) -> Any:
    like = torch.empty_like(args[0], dtype=torch.bfloat16)
    geometry = (*args[1:], *([], [0, 0], [1, 1], False)[len(args) - 2 :])
    return lambda g: (aten.max_pool2d_with_indices_backward(g, like, *geometry, out[1]),)


def _average_pool(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    like = torch.empty_like(args[0], dtype=torch.bfloat16)
    geometry = (*args[1:], *([], [0, 0], False, True, None)[len(args) - 2 :])
    return lambda g: (aten.avg_pool2d_backward(g, like, *geometry),)


def _mean(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    if not args[1]:
        return None
    shape, axes = args[0].shape, [a % args[0].ndim for a in args[1]]
    count = math.prod(shape[a] for a in axes)
    kept = [1 if a in axes else s for a, s in enumerate(shape)]
    return lambda g: ((g / count).reshape(kept).expand(shape),)


def _slice(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    shape, defaults = args[0].shape, (0, None, None, 1)
    axis, start, end, step = (*args[1:], *defaults[len(args) - 1 :])
    start, end, step = slice(start, end, step).indices(shape[axis])
    return lambda g: (aten.slice_backward(g, shape, axis, start, end, step),)


def _pad(out: Tensor, args: Any, data: list[Tensor], weights: Weights) -> Any:
    return lambda g: (F.pad(g, [-n for n in args[1]]),)


RULES: dict[Any, Callable[..., Any]] = {
    aten.convolution.default: _convolution,
    aten.addmm.default: _product,
    aten.mm.default: _product,
    aten.relu.default: _relu,
    aten.relu_.default: _relu,
    aten.sigmoid.default: _sigmoid,
    aten.tanh.default: _tanh,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.clone.default: _copy,
    aten.alias.default: _alias,
    aten.as_strided_.default: _restride,
    aten.add.Tensor: _sum(1.0),
    aten.add_.Tensor: _sum(1.0),
    aten.sub.Tensor: _sum(-1.0),
    aten.rsub.Scalar: _negated,
    aten.mul.Tensor: _scaled(invert=False),
    aten.div.Tensor: _scaled(invert=True),
    aten.native_batch_norm.default: _batch_norm,
    aten.max_pool2d_with_indices.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.mean.dim: _mean,
    aten.slice.Tensor: _slice,
    aten.constant_pad_nd.default: _pad,
}
