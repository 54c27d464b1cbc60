"""A slope measured on one operation alone, where no rule knows one: the operation runs at points around its input.

A map from rows to rows that is nearly linear (an int8 layer) is learned once, from as many points as it has inputs.
Anything else is asked on the way back: differences of the result along random directions, for each gradient anew.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

# Directions of a backward pass, or all coordinates where these are fewer. Ours.
DIRECTIONS = 32
# Most inputs of a row for which a linear map is learned, and least cosine between its changes and those seen. Ours.
LARGEST, LINEAR = 2048, 0.97

Run = Callable[[Tensor], Tensor]


class _Secant(Function):
    """The value of an operation; its vector-Jacobian product by central differences of the operation itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, run: Run, step: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.run, ctx.step = run, step
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        rows = len(x) if x.ndim and grad.ndim and len(x) == len(grad) else 1
        size = x.numel() // max(rows, 1)
        by_coordinate = size <= DIRECTIONS
        generator = torch.Generator(x.device).manual_seed(x.numel())
        found = torch.zeros_like(x)
        for n in range(min(size, DIRECTIONS)):
            if by_coordinate:
                v = torch.zeros(rows, size, dtype=x.dtype, device=x.device)
                v[:, n] = 1
                v = v.reshape(x.shape)
            else:
                v = (torch.randint(0, 2, x.shape, generator=generator, device=x.device) * 2 - 1).to(x)
            try:
                above, below = ctx.run(x + ctx.step * v), ctx.run(x - ctx.step * v)
            except (RuntimeError, ValueError, IndexError, TypeError):
                continue
            if above.shape != grad.shape or below.shape != grad.shape:
                continue  # a result whose shape depends on its values
            change = ((above.to(grad) - below.to(grad)) / (2 * ctx.step) * grad).reshape(rows, -1).sum(1)
            found += change.reshape(rows, *[1] * (x.ndim - 1)) * v if x.ndim else change.sum() * v
        return found if by_coordinate else found / DIRECTIONS, None, None, None


def secant(run: Run, x: Tensor, value: Tensor, step: float) -> Tensor:
    """The value `run(x)`, with a slope measured over `step` wherever a gradient comes back.

    **Arguments**
    - `run`: the operation alone, of one float tensor; it is called without autograd.
    - `value`: its float result. Where its first dimension is that of `x`, rows are taken to be independent.

    **Cost**: 64 calls of the operation for each backward pass; none of them is a pass through the network.
    """

    def alone(point: Tensor) -> Tensor:
        with torch.no_grad():
            return run(point)

    return _Secant.apply(x, value, alone, step)


def linear_map(run: Run, x: Tensor, value: Tensor, spread: float) -> Tensor | None:
    """The matrix `[features, results]` that an operation on rows is near to; None where it is near to none.

    **Arguments**
    - `x`, `value`: `[rows, …]`, the operation's input and result.
    - `spread`: how far around the rows it is asked.

    **Cost**: about twice as many rows through the operation as a row has numbers.
    """
    if x.ndim < 2 or value.ndim < 2 or len(x) != len(value) or x[0].numel() > LARGEST:
        return None
    features = x[0].numel()
    count = 2 * features + 64
    generator = torch.Generator(x.device).manual_seed(features)
    base = x.detach().repeat(-(-count // len(x)), *[1] * (x.ndim - 1))[:count]
    noise = torch.randn(base.shape, generator=generator, device=x.device, dtype=x.dtype)
    points = base + spread * noise
    with torch.no_grad():
        try:
            seen = torch.cat([run(part) for part in points.split(256)])
        except (RuntimeError, ValueError, IndexError, TypeError):
            return None
    if len(seen) != count:
        return None
    a, b = points.flatten(1).double(), seen.flatten(1).double()
    a, b = a - a.mean(0), b - b.mean(0)
    known = count - count // 8
    ridge = 1e-6 * a[:known].square().sum() / features
    gram = a[:known].T @ a[:known] + ridge * torch.eye(features, dtype=a.dtype, device=a.device)
    weight = torch.linalg.solve(gram, a[:known].T @ b[:known])
    # Of the changes seen around each row, not of the rows' own differences: a curve is no line from near.
    beside = (
        value.detach().repeat(-(-count // len(x)), *[1] * (value.ndim - 1))[known:count].flatten(1).double()
    )
    change = seen[known:].flatten(1).double() - beside
    step = (points - base)[known:].flatten(1).double()
    agreement = torch.cosine_similarity(step @ weight, change, dim=1).mean()
    return weight.to(x) if agreement > LINEAR else None
