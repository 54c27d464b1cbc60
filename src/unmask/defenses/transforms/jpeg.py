"""JPEG compression."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from ...errors import UnusableInput
from .base import Images, Preprocessing


class _Compression(nn.Module):
    def __init__(self, quality: int):
        super().__init__()
        self.quality = quality

    def forward(self, x: Images) -> Images:
        pixels = (x.detach().cpu().numpy() * 255).round().clip(0, 255).astype(np.uint8)
        # A picture of three channels is one of colours; of any other number, so many pictures in grey.
        pictures = pixels.transpose(0, 2, 3, 1) if x.shape[1] == 3 else pixels.reshape(-1, *x.shape[2:])
        decoded = np.stack([self.through_a_file(picture) for picture in pictures])
        decoded = decoded.transpose(0, 3, 1, 2) if x.shape[1] == 3 else decoded.reshape(x.shape)
        return torch.from_numpy(np.ascontiguousarray(decoded)).to(x) / 255

    def through_a_file(self, picture: np.ndarray) -> np.ndarray:
        """One picture, `[height, width]` or `[height, width, 3]`, bytes to bytes."""
        from PIL import Image  # here, so that importing the defences does not load Pillow

        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=self.quality)
        return np.asarray(Image.open(file))


@dataclass(frozen=True, kw_only=True)
class JPEG(Preprocessing):
    """Compresses every image as JPEG and decodes it again, by Pillow; colours at half resolution, as is usual.

    **Fields**
    - `quality`: 1 to 95; 75 in both papers.

    **Source**: Dziugaite, Ghahramani & Roy 2016, arXiv:1608.00853; Guo et al. 2018, arXiv:1711.00117.
    """

    quality: int = 75

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 95:
            raise UnusableInput(f"`JPEG` has quality={self.quality}; give 1 to 95")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Compression(self.quality)
