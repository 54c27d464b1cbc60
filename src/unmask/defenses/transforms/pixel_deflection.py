"""Random pixels take the value of a neighbour, and wavelets smooth it over."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import UnusableInput
from ..base import RandomDefense
from .base import Images, Preprocessing


def deflect(x: Images, count: int, window: int) -> Images:
    """`count` random pixels of each image, each replaced by a random one at most `window` away, all at once."""
    batch, channels, height, width = x.shape
    row = torch.randint(height, (batch, count), device=x.device)
    column = torch.randint(width, (batch, count), device=x.device)
    shift = torch.randint(-window, window + 1, (2, batch, count), device=x.device)
    source = (row + shift[0]).clamp(0, height - 1) * width + (column + shift[1]).clamp(0, width - 1)
    flat = x.flatten(2)
    values = flat.gather(2, source[:, None].expand(-1, channels, -1))
    return flat.scatter(2, (row * width + column)[:, None].expand(-1, channels, -1), values).view_as(x)


def bayes_shrink(x: Images, sigma: float, levels: int) -> Images:
    """Soft thresholds on the Haar wavelets of each channel, by noise and signal of each band.

    The threshold of a band is sigma^2 over the standard deviation of its noiseless coefficients, as estimated
    from what the band has more than the noise; a band that has no more is all noise.
    **Source**: Chang, Yu & Vetterli 2000, doi:10.1109/83.862633.
    """
    height, width = x.shape[-2:]
    even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    a, b = even[..., ::2, ::2], even[..., ::2, 1::2]
    c, d = even[..., 1::2, ::2], even[..., 1::2, 1::2]
    coarse = (a + b + c + d) / 2
    if levels > 1:
        coarse = bayes_shrink(coarse, sigma, levels - 1)
    across, down, both = (
        _shrunk(band, sigma) for band in ((a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2)
    )
    out = torch.empty_like(even)
    out[..., ::2, ::2] = coarse + across + down + both
    out[..., ::2, 1::2] = coarse - across + down - both
    out[..., 1::2, ::2] = coarse + across - down - both
    out[..., 1::2, 1::2] = coarse - across - down + both
    return out[..., :height, :width] / 2


def _shrunk(band: Images, sigma: float) -> Images:
    signal = (band.square().mean((2, 3), keepdim=True) - sigma**2).clamp_min(0).sqrt()
    return torch.sign(band) * (band.abs() - sigma**2 / signal).clamp_min(0)


class _Deflection(nn.Module):
    def __init__(self, deflections: int, window: int, sigma: float):
        super().__init__()
        self.deflections, self.window, self.sigma = deflections, window, sigma

    def forward(self, x: Images) -> Images:
        with torch.no_grad():
            x = deflect(x, self.deflections, self.window)
            if not self.sigma:
                return x
            levels = max(1, int(math.log2(min(x.shape[-2:]))) - 3)
            return bayes_shrink(x, self.sigma, levels).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class PixelDeflection(Preprocessing, RandomDefense):
    """Replaces random pixels by others nearby, then denoises with wavelets.

    **Fields**
    - `deflections`: how many pixels; 100 in the paper, for images of 299 x 299, so that far fewer do for small ones.
    - `window`: how far away the other pixel may be, in rows and in columns; 10 in the paper.
    - `sigma`: the noise that the wavelet thresholds assume, in units of the image range; 0.04 in the paper. 0 leaves
      the denoising out.
    - `passes`, `average`: as `RandomDefense` has them; ours.

    **Source**: Prakash et al. 2018, arXiv:1801.08926. **Differs**: pixels are chosen uniformly, without an
    activation map; Haar wavelets on each channel instead of on luminance and colour.
    """

    deflections: int = 100
    window: int = 10
    sigma: float = 0.04

    def __post_init__(self) -> None:
        for name in ("deflections", "window"):
            if getattr(self, name) < 1:
                raise UnusableInput(f"`PixelDeflection` has {name}={getattr(self, name)}; give at least 1")
        if not self.sigma >= 0:
            raise UnusableInput(
                f"`PixelDeflection` has sigma={self.sigma}; give a number that is zero or larger"
            )

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Deflection(self.deflections, self.window, self.sigma)

    @property
    def draws(self) -> int | None:
        """As `Preprocessing.draws`."""
        return self.passes
