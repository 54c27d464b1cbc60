"""What bounds need to know of each operation of a network: how intervals pass through it, and how lines pass back.

A *relaxation row* is a linear function of an operation's output, one per `[batch, specs]`. `pull` replaces it by a
linear function of the operation's inputs that is nowhere larger on the interval; that is one step of CROWN's
backward recursion. All arithmetic is in float64.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .lines import Lines, relu_lines, sigmoid_lines, tanh_lines

# Larger than gamma_n = n 2^-53 (Higham 2002, lemma 3.1) for sums of up to 9,000 terms, so intervals stay outside.
ROUNDING = 1e-12


class Interval(NamedTuple):
    """Elementwise bounds `[batch, *shape]`, float64."""

    lower: Tensor
    upper: Tensor

    def meet(self, other: Interval) -> Interval:
        """The intersection: the better of two bounds, element by element."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))


class Operation(ABC):
    """One operation of the graph."""

    @abstractmethod
    def forward(self, *inputs: Tensor) -> Tensor:
        """The operation itself, float64, `[batch, *shape]`."""

    @abstractmethod
    def interval(self, *inputs: Interval) -> Interval:
        """Bounds of the output from bounds of the inputs."""

    @abstractmethod
    def pull(self, rows: Tensor, inputs: list[Interval], slope: Tensor | None) -> tuple[list[Tensor], Tensor]:
        """Rows `[batch, specs, *out]` as rows of each input `[batch, specs, *in]`, and an offset `[batch, specs]`.

        `slope` `[batch, specs or 1, *in]` replaces the lower line's slope of a ReLU; the others ignore it.
        """


def _total(rows: Tensor) -> Tensor:
    return rows.flatten(2).sum(2)


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """`linear(x) + bias`.

    **Fields**
    - `linear`: the map without its bias.
    - `absolute`: the map with every coefficient replaced by its absolute value.
    - `bias`: broadcastable to `[1, *out]`, or None.
    - `transpose`: `[rows, *out]` to `[rows, *in]`; by default torch's vector-Jacobian product of `linear`.
    - `in_shape`: shape of one input.
    """

    linear: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    bias: Tensor | None
    in_shape: tuple[int, ...]
    transpose: Callable[[Tensor], Tensor] | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        out = self.linear(inputs[0])
        return out if self.bias is None else out + self.bias

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = inputs[0]
        center, radius = (lower + upper) / 2, (upper - lower) / 2
        middle = self.forward(center)
        spread = self.absolute(radius + ROUNDING * (center.abs() + radius))
        if self.bias is not None:
            spread = spread + ROUNDING * self.bias.abs()
        return Interval(middle - spread, middle + spread)

    def pull(self, rows: Tensor, inputs: list[Interval], slope: Tensor | None) -> tuple[list[Tensor], Tensor]:
        flat = rows.flatten(0, 1)
        transpose = self.transpose or partial(_transposed, self.linear, self.in_shape)
        back = transpose(flat)
        offset = rows.new_zeros(rows.shape[:2]) if self.bias is None else _total(rows * self.bias)
        return [back.reshape(*rows.shape[:2], *self.in_shape)], offset


def _transposed(linear: Callable[[Tensor], Tensor], in_shape: tuple[int, ...], rows: Tensor) -> Tensor:
    """The transpose of a linear map at `rows` `[n, *out]`, differentiable in them: `[n, *in_shape]`."""
    differentiable = torch.is_grad_enabled() and rows.requires_grad
    with torch.enable_grad():  # `torch.func.vjp` would import torch's compiler, which takes seconds
        x = rows.new_zeros(len(rows), *in_shape, requires_grad=True)
        return torch.autograd.grad(linear(x), x, rows, create_graph=differentiable)[0]


@dataclass(frozen=True, eq=False)
class Activation(Operation):
    """A growing function of each element, with lines above and below it."""

    function: Callable[[Tensor], Tensor]
    lines: Callable[[Tensor, Tensor], Lines]

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        lower, upper = self.function(inputs[0].lower), self.function(inputs[0].upper)
        return Interval(lower - ROUNDING * lower.abs(), upper + ROUNDING * upper.abs())

    def pull(self, rows: Tensor, inputs: list[Interval], slope: Tensor | None) -> tuple[list[Tensor], Tensor]:
        lower, upper = (bound[:, None] for bound in inputs[0])
        lines = self.lines(lower, upper) if slope is None else relu_lines(lower, upper, slope)
        positive, negative = rows.clamp_min(0), rows.clamp_max(0)
        offset = _total(positive * lines.lower_offset + negative * lines.upper_offset)
        return [positive * lines.lower_slope + negative * lines.upper_slope], offset


RELU = Activation(torch.relu, relu_lines)
SIGMOID = Activation(torch.sigmoid, sigmoid_lines)
TANH = Activation(torch.tanh, tanh_lines)


@dataclass(frozen=True, eq=False)
class MaxPool(Operation):
    """The largest element of each window of `[batch, channels, height, width]`.

    Below: the window's element with the largest lower bound. Above: that element too where no other can exceed it,
    else the largest upper bound.

    **Fields**
    - `kernel`, `stride`, `padding`, `dilation`: pairs, as in `torch.nn.functional.max_pool2d`.
    - `in_shape`: shape of one input.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    in_shape: tuple[int, ...]

    def forward(self, *inputs: Tensor) -> Tensor:
        return F.max_pool2d(inputs[0], self.kernel, self.stride, self.padding, self.dilation)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def _windows(self, x: Tensor) -> Tensor:
        """`[batch, channels, elements of a window, windows]`; the padding never wins."""
        high, wide = self.padding
        padded = F.pad(x, (wide, wide, high, high), value=-torch.inf)
        columns = F.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        return columns.reshape(len(x), self.in_shape[0], -1, columns.shape[-1])

    def pull(self, rows: Tensor, inputs: list[Interval], slope: Tensor | None) -> tuple[list[Tensor], Tensor]:
        lower, upper = (self._windows(bound) for bound in inputs[0])
        best, place = lower.max(2, keepdim=True)
        rival = upper.scatter(2, place, -torch.inf).amax(2, keepdim=True)
        decided = rival <= best
        top = upper.amax(2, keepdim=True)
        batch, specs = rows.shape[:2]
        flat = rows.flatten(3)[:, :, :, None]  # [batch, specs, channels, 1, windows]
        positive, negative = flat.clamp_min(0), flat.clamp_max(0)
        kept = positive + negative * decided[:, None]
        offset = (negative * (top * ~decided)[:, None]).flatten(2).sum(2)
        shape = (batch, specs, *lower.shape[1:])
        columns = rows.new_zeros(shape).scatter(3, place[:, None].expand(*shape[:3], 1, shape[4]), kept)
        size = tuple(s + 2 * p for s, p in zip(self.in_shape[1:], self.padding, strict=True))
        columns = columns.reshape(batch * specs, -1, shape[4])
        padded = F.fold(columns, size, self.kernel, self.dilation, 0, self.stride)
        (high, wide), (height, width) = self.padding, self.in_shape[1:]
        back = padded[:, :, high : high + height, wide : wide + width]
        return [back.reshape(batch, specs, *self.in_shape)], offset


@dataclass(frozen=True, eq=False)
class Sum(Operation):
    """`x + sign * z` of two tensors of one shape: the residual connection."""

    sign: float = 1.0

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[0] + self.sign * inputs[1]

    def interval(self, *inputs: Interval) -> Interval:
        a, b = inputs
        if self.sign < 0:
            b = Interval(-b.upper, -b.lower)
        lower, upper = a.lower + b.lower, a.upper + b.upper
        return Interval(lower - ROUNDING * lower.abs(), upper + ROUNDING * upper.abs())

    def pull(self, rows: Tensor, inputs: list[Interval], slope: Tensor | None) -> tuple[list[Tensor], Tensor]:
        return [rows, self.sign * rows], rows.new_zeros(rows.shape[:2])


@dataclass(frozen=True, eq=False)
class Concatenation(Operation):
    """Tensors side by side (`cat`), or along an axis of its own (`stack`).

    **Fields**
    - `dim`: the axis, counted with the batch's, so 1 or larger.
    - `sizes`: how long each tensor is there; 1 each for `stack`.
    - `new_axis`: whether the axis is made, as `stack` does.
    """

    dim: int
    sizes: tuple[int, ...]
    new_axis: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.stack(inputs, self.dim) if self.new_axis else torch.cat(inputs, self.dim)

    def interval(self, *inputs: Interval) -> Interval:
        return Interval(self.forward(*(i.lower for i in inputs)), self.forward(*(i.upper for i in inputs)))

    def pull(self, rows: Tensor, inputs: list[Interval], slope: Tensor | None) -> tuple[list[Tensor], Tensor]:
        parts = rows.split(self.sizes, self.dim + 1)  # behind the axis of specs
        if self.new_axis:
            parts = [part.squeeze(self.dim + 1) for part in parts]
        return list(parts), rows.new_zeros(rows.shape[:2])
