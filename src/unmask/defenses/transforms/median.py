"""The median of a window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ...errors import UnusableInput
from .base import Images, Preprocessing


class _Median(nn.Module):
    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Images) -> Images:
        from scipy import ndimage  # here, for it takes a moment to import

        pixels = x.detach().cpu().numpy()
        return torch.from_numpy(ndimage.median_filter(pixels, size=(1, 1, self.size, self.size))).to(x)


@dataclass(frozen=True, kw_only=True)
class Median(Preprocessing):
    """Replaces every pixel by the median of a square window around it, channel by channel, by SciPy.

    **Fields**
    - `size`: side of the window, at least 2; 2 in the paper on MNIST (with 3) and CIFAR-10. In an even window the
      larger of the middle values is taken, and the window reaches farther up and to the left.

    **Source**: Xu, Evans & Qi 2018, arXiv:1704.01155, section III-B.
    """

    size: int = 2

    def __post_init__(self) -> None:
        if self.size < 2:
            raise UnusableInput(f"`Median` has size={self.size}; give at least 2")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Median(self.size)
