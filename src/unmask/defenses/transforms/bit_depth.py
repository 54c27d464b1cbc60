"""Fewer bits a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...errors import UnusableInput
from .base import Images, Preprocessing, Surrogate


class _Rounding(nn.Module):
    def __init__(self, bits: int):
        super().__init__()
        self.steps = 2**bits - 1

    def forward(self, x: Images) -> Images:
        with torch.no_grad():
            return torch.round(x * self.steps) / self.steps


@dataclass(frozen=True, kw_only=True)
class BitDepth(Preprocessing):
    """Rounds every pixel to the nearest of `2 ** bits` equidistant values.

    Its surrogate is the identity; for one bit a sigmoid around 0.5, since one step of the size of the whole range
    is far from the identity.

    **Fields**
    - `bits`: 1 to 8. Xu et al. choose 1 on MNIST and 5 on CIFAR-10 and ImageNet.

    **Source**: Xu, Evans & Qi 2018, arXiv:1704.01155, section III-A.
    """

    bits: int = 5

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise UnusableInput(f"`BitDepth` has bits={self.bits}; give 1 to 8")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Rounding(self.bits)

    @property
    def surrogate(self) -> Surrogate | None:
        """As `Preprocessing.surrogate`."""
        return _soft_step if self.bits == 1 else None


def _soft_step(x: Images) -> Images:
    return torch.sigmoid(10 * (x - 0.5))  # the slope is felt over about 0.3 on either side; ours
