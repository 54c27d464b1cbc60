"""The mean of pixels whose surroundings look alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import UnusableInput
from .base import Images, Preprocessing


class _NonLocalMeans(nn.Module):
    def __init__(self, window: int, patch: int, strength: float):
        super().__init__()
        self.window, self.patch, self.strength = window, patch, strength

    def forward(self, x: Images) -> Images:
        with torch.no_grad():
            reach, half = self.window // 2, self.patch // 2
            height, width = x.shape[-2:]
            h = self.strength / 255
            # The image with a border that every patch around every pixel of the window fits into.
            around = F.pad(x, (reach + half,) * 4, mode="replicate")
            middle = around[..., reach : reach + height + 2 * half, reach : reach + width + 2 * half]
            total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
            for down in range(2 * reach + 1):
                for right in range(2 * reach + 1):
                    other = around[..., down : down + height + 2 * half, right : right + width + 2 * half]
                    distance = (middle - other).square().mean(1, keepdim=True)
                    weight = torch.exp(F.avg_pool2d(distance, self.patch, 1) / -(h * h))
                    total += weight * other[..., half : half + height, half : half + width]
                    weights += weight
            return total / weights


@dataclass(frozen=True, kw_only=True)
class NonLocalMeans(Preprocessing):
    """Replaces every pixel by a mean over a window, weighted by how much the patches around the two look alike.

    **Fields**
    - `window`, `patch`: sides of the search window and of the compared patches, odd; 13 and 3 in the paper.
    - `strength`: h, in levels of 255: a patch whose mean squared difference is h^2 weighs 1/e. 2 in the paper on
      CIFAR-10, 4 on ImageNet.

    **Cost**: `window ** 2` comparisons of the image with itself.
    **Source**: Xu, Evans & Qi 2018, arXiv:1704.01155, section III-B; Buades, Coll & Morel 2005,
    doi:10.1109/CVPR.2005.38. **Differs**: they use OpenCV, which compares colours in another space.
    """

    window: int = 13
    patch: int = 3
    strength: float = 2.0

    def __post_init__(self) -> None:
        for name in ("window", "patch"):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise UnusableInput(f"`NonLocalMeans` has {name}={getattr(self, name)}; give an odd number")
        if not self.strength > 0:
            raise UnusableInput(f"`NonLocalMeans` has strength={self.strength}; give a positive number")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _NonLocalMeans(self.window, self.patch, self.strength)
