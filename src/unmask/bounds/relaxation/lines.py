"""Straight lines above and below a non-linear operation on an interval, for linear relaxation (CROWN).

Each function takes the bounds of the operation's input and returns `Lines` of the same shape: for every z in
[lower, upper], `lower_slope * z + lower_offset <= f(z) <= upper_slope * z + upper_offset`.

**Source**: Zhang et al. 2018, arXiv:1811.00866 (CROWN), section 3 and its table of S-shaped activations.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Bisection halves the bracket of a tangent point; 60 halvings exhaust float64.
_HALVINGS = 60
# What float64 may round off a line whose values are at most one; far above 2^-53, far below anything that matters.
_ROUNDING = 1e-12


class Lines(NamedTuple):
    """Slopes and offsets, each of the shape of the operation's input."""

    lower_slope: Tensor
    lower_offset: Tensor
    upper_slope: Tensor
    upper_offset: Tensor


def relu_lines(lower: Tensor, upper: Tensor, slope: Tensor | None = None) -> Lines:
    """Lines around `max(z, 0)`.

    `slope` in [0, 1] is the lower line's slope where the sign of z is open; by default the one of 0 and 1 that
    leaves the smaller area, as in CROWN.
    """
    open_sign = (lower < 0) & (upper > 0)
    always_on = (lower >= 0).to(lower.dtype)
    if slope is None:
        slope = (upper >= -lower).to(lower.dtype)
    chord = upper / (upper - lower).clamp_min(torch.finfo(lower.dtype).tiny)
    return Lines(
        torch.where(open_sign, slope, always_on),
        torch.zeros_like(lower),
        torch.where(open_sign, chord, always_on),
        torch.where(open_sign, -chord * lower * (1 + _ROUNDING), torch.zeros_like(lower)),
    )


def _line_above_tanh(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """The line of least value at the interval's middle that stays above tanh: a tangent, or the chord.

    A tangent at d >= 0 lies above tanh on [lower, upper] if and only if it does so at `lower`, and this holds for
    every d from some smallest one on; bisection finds that. If it is past `upper`, tanh lies below its chord.
    """
    left = torch.zeros_like(lower)
    right = (-lower).clamp_min(0)  # tangent at -lower passes above (lower, tanh(lower)) because tanh is odd
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        value = middle.tanh()
        below = value + (1 - value**2) * (lower - middle) < lower.tanh()
        left, right = torch.where(below, middle, left), torch.where(below, right, middle)
    smallest = torch.maximum(right, lower)
    touch = torch.maximum(smallest, (lower + upper) / 2)
    width = upper - lower
    value = touch.tanh()
    tangent = 1 - value**2
    low, high = lower.tanh(), upper.tanh()
    chord = (high - low) / width.clamp_min(1e-6)
    use_chord = smallest > upper
    slope = torch.where(use_chord, chord, tangent)
    offset = torch.where(use_chord, low - chord * lower, value - tangent * touch)
    # On a sliver a chord's slope is all cancellation: a constant is as good there, and safe because tanh grows.
    sliver = width < 1e-6
    slope = torch.where(sliver, torch.zeros_like(slope), slope)
    offset = torch.where(sliver, high, offset)
    return slope, offset + _ROUNDING * (1 + slope * torch.maximum(lower.abs(), upper.abs()))


def tanh_lines(lower: Tensor, upper: Tensor) -> Lines:
    """Lines around tanh. Below is above, mirrored: tanh is odd."""
    upper_slope, upper_offset = _line_above_tanh(lower, upper)
    lower_slope, mirrored = _line_above_tanh(-upper, -lower)
    return Lines(lower_slope, -mirrored, upper_slope, upper_offset)


def sigmoid_lines(lower: Tensor, upper: Tensor) -> Lines:
    """Lines around the sigmoid, which is (1 + tanh(z / 2)) / 2."""
    of_tanh = tanh_lines(lower / 2, upper / 2)
    return Lines(
        of_tanh.lower_slope / 4,
        (1 + of_tanh.lower_offset) / 2,
        of_tanh.upper_slope / 4,
        (1 + of_tanh.upper_offset) / 2,
    )
