"""What autograd is told: another value's backward pass behind a tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


class SurrogateGradient(Function):
    """Forward gives `value`; backward goes to `surrogate`, whose own value is never used."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, surrogate: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = surrogate.shape, surrogate.dtype
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor]:  # type: ignore[override]
        return None, grad.reshape(ctx.shape).to(ctx.dtype)


class Finite(Function):
    """Identity whose backward keeps the gradient finite: NaN becomes 0, infinities the largest finite size."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        finite = torch.where(torch.isfinite(grad), grad.abs(), 0).amax()
        return grad.nan_to_num(nan=0.0, posinf=float(finite), neginf=-float(finite))
