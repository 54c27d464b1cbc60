"""The flattest image that agrees with the pixels that were kept."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UnusableInput
from ..base import RandomDefense
from .base import Images, Preprocessing, Surrogate

SHORT = 15  # iterations on the way back; on CIFAR-10 no worse than all 50, whose slopes cost three times as much: ours
STEP = 8**-0.5  # primal and dual; 8 bounds the squared norm of the discrete gradient


def gradient(z: Images) -> Tensor:
    """Differences to the lower and to the right neighbour, `[2, *z.shape]`; zero at the border."""
    down = F.pad(z[..., 1:, :] - z[..., :-1, :], (0, 0, 0, 1))
    right = F.pad(z[..., 1:] - z[..., :-1], (0, 1))
    return torch.stack((down, right))


def divergence(p: Tensor) -> Images:
    """Minus the adjoint of `gradient`, of a field that is zero where `gradient` is."""
    down, right = p
    return (down - F.pad(down[..., :-1, :], (0, 0, 1, 0))) + (right - F.pad(right[..., :-1], (1, 0)))


def minimise(x: Images, kept: Tensor, weight: float, iterations: int) -> Images:
    """Minimises 1/2 sum kept (z - x)^2 + weight TV(z) by the primal-dual method; TV is the isotropic one.

    `kept` is 0 or 1 and broadcasts over `x`. Where a pixel is not kept its value is never looked at: the
    iteration starts there from the mean of the kept ones around it.
    """
    share = F.avg_pool2d(kept.expand_as(x), 5, 1, 2)
    z = torch.where(kept > 0, x, F.avg_pool2d(kept * x, 5, 1, 2) / share.clamp_min(1e-6))
    ahead, p = z, torch.zeros(2, *z.shape, dtype=z.dtype, device=z.device)
    for _ in range(iterations):
        p = p + STEP * gradient(ahead)
        p = p / (torch.linalg.vector_norm(p, dim=0) / weight).clamp_min(
            1
        )  # its slope at zero is zero, not NaN
        before = z
        z = (z + STEP * (divergence(p) + kept * x)) / (1 + STEP * kept)
        ahead = 2 * z - before
    return z.clamp(0, 1)


class _Minimisation(nn.Module):
    def __init__(self, weight: float, drop: float, iterations: int, *, differentiable: bool = False):
        super().__init__()
        self.weight, self.drop, self.iterations = weight, drop, iterations
        self.differentiable = differentiable

    def forward(self, x: Images) -> Images:
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            kept = (torch.rand_like(x[:, :1]) >= self.drop).to(x) if self.drop else torch.ones_like(x[:, :1])
            return minimise(x, kept, self.weight, self.iterations)


@dataclass(frozen=True, kw_only=True)
class TotalVariation(Preprocessing, RandomDefense):
    """Drops random pixels and puts the image of least total variation through those that are left.

    **Fields**
    - `weight`: of the total variation against the squared error; 0.03 in the paper.
    - `drop`: probability that a pixel is dropped, all its channels together; 0.5 in the paper. 0 makes it
      deterministic.
    - `iterations`: of the solver; ours. After 50 a pixel is 0.0002 from the minimum where none are dropped, 0.0012
      where half are (means over 32 images of CIFAR-10; one level of 255 is 0.004).
    - `passes`, `average`: as `RandomDefense` has them, where pixels are dropped.

    **Source**: Guo et al. 2018, arXiv:1711.00117, section 4.3; solver: Chambolle & Pock 2011,
    doi:10.1007/s10851-010-0251-1. **Differs**: they solve by split Bregman, group the differences by rows and
    columns instead of by pixels, and train the network on such images.
    """

    weight: float = 0.03
    drop: float = 0.5
    iterations: int = 50

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise UnusableInput(f"`TotalVariation` has weight={self.weight}; give a positive number")
        if not 0 <= self.drop < 1:
            raise UnusableInput(f"`TotalVariation` has drop={self.drop}; give a number in [0, 1)")
        if self.iterations < 1:
            raise UnusableInput(f"`TotalVariation` has iterations={self.iterations}; give at least 1")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Minimisation(self.weight, self.drop, self.iterations)

    @property
    def surrogate(self) -> Surrogate | None:
        """The solver's own first iterations, with the same pixels dropped: none of the identity's slope is theirs."""
        if not self.drop:
            return None
        iterations = min(self.iterations, SHORT)
        return _Minimisation(self.weight, self.drop, iterations, differentiable=True)

    @property
    def draws(self) -> int | None:
        """As `Preprocessing.draws`."""
        return self.passes if self.drop else None
