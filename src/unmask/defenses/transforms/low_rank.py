"""The image as a matrix of low rank."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ...errors import UnusableInput
from ..base import RandomDefense
from .base import Images, Preprocessing


class _LowRank(nn.Module):
    def __init__(self, share: float, keep: float):
        super().__init__()
        self.share, self.keep = share, keep

    def forward(self, x: Images) -> Images:
        with torch.no_grad():
            centred = 2 * x - 1  # so that a lost pixel is grey, not black
            if self.keep < 1:
                centred = centred * (torch.rand_like(x[:, :1]) < self.keep) / self.keep
            # One matrix an image, its channels side by side.
            matrix = centred.transpose(1, 2).flatten(2)
            u, s, v = torch.linalg.svd(matrix, full_matrices=False)
            rank = max(1, math.ceil(self.share * s.shape[1]))
            low = (u[..., :rank] * s[:, None, :rank]) @ v[:, :rank]
            back = low.unflatten(2, (x.shape[1], x.shape[3])).transpose(1, 2)
            return ((back + 1) / 2).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class LowRank(Preprocessing, RandomDefense):
    """Loses random pixels and rebuilds each image from the largest singular values of what is left.

    **Fields**
    - `share`: which part of the singular values is kept. Ours; the paper's thresholds are made for networks that
      are trained behind them.
    - `keep`: probability that a pixel is kept; the paper trains with 0.4 to 1. 1, ours, makes it deterministic, for
      networks that never saw lost pixels.
    - `passes`, `average`: as `RandomDefense` has them, where pixels are lost; 10 in
      the paper.

    **Source**: Yang et al. 2019, arXiv:1905.11971 (ME-Net), with estimation by singular values.
    """

    share: float = 0.5
    keep: float = 1.0

    def __post_init__(self) -> None:
        for name in ("share", "keep"):
            if not 0 < getattr(self, name) <= 1:
                raise UnusableInput(f"`LowRank` has {name}={getattr(self, name)}; give a number in (0, 1]")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _LowRank(self.share, self.keep)

    @property
    def draws(self) -> int | None:
        """As `Preprocessing.draws`."""
        return self.passes if self.keep < 1 else None
