"""A small network that sees the clean image through noise of any strength, and how it is taught."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...tracing.repair.regions.regression import regress
from ..transforms.base import Images
from .generator import shuffled

LEAST = 1e-3  # of the signal's share of the variance; ours: below it nothing of an image of 64 pixels is seen


class Denoiser(nn.Module):
    """Two hidden layers of ReLUs from a noisy image and the strength of its noise to the clean image.

    Images lie in [-1, 1], as in the paper. A noisy one is sqrt(share) x + sqrt(1 - share) n, where n is standard
    normal and `share` the signal's share of the variance (the paper's cumulated alpha).

    **Arguments**
    - `shape`: of one image, `(channels, height, width)`.
    - `width`: of the hidden layers.

    **Source**: Ho, Jain & Abbeel 2020, arXiv:2006.11239. **Differs**: it predicts the image and not the noise (their
    section 3.2 names both), which a narrow perceptron can; theirs is a U-Net.

    >>> Denoiser((1, 8, 8))(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5)).shape
    torch.Size([2, 1, 8, 8])
    """

    shape: Tensor

    def __init__(self, shape: Sequence[int], *, width: int = 128):
        super().__init__()
        self.register_buffer("shape", torch.tensor(list(shape)))  # stored with the weights
        pixels = math.prod(shape)
        self.layers = nn.Sequential(
            nn.Linear(pixels + 2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(),
            nn.Linear(width, pixels), nn.Tanh(), nn.Unflatten(1, tuple(shape)),
        )  # fmt: skip

    def forward(self, noisy: Images, share: Float[Tensor, " batch"]) -> Images:
        """The clean images as they are most likely, in [-1, 1]."""
        strength = torch.stack((share.sqrt(), (1 - share).sqrt()), 1)
        return self.layers(torch.cat((noisy.flatten(1), strength), 1))

    @classmethod
    def of(cls, weights: dict[str, Tensor]) -> Denoiser:
        """The denoiser that a state dict belongs to; its sizes are read off it."""
        network = cls(weights["shape"].tolist(), width=len(weights["layers.0.weight"]))
        network.load_state_dict(weights)
        return network


def noised(x: Images, share: Float[Tensor, " batch"], noise: Images) -> Images:
    """sqrt(share) x + sqrt(1 - share) noise."""
    share = share.view(-1, *[1] * (x.ndim - 1))
    return share.sqrt() * x + (1 - share).sqrt() * noise


class _Noised(nn.Module):
    """A denoiser as a map of one argument: pairs packed as (noisy, share)."""

    def __init__(self, network: Denoiser):
        super().__init__()
        self.network = network

    def forward(self, packed: tuple[Images, Tensor]) -> Images:
        return self.network(*packed)


def train_denoiser(
    network: Denoiser,
    x: Images,
    *,
    generator: torch.Generator,
    epochs: int = 200,
    batch_size: int = 64,
    rate: float = 2e-3,
) -> float:
    """Teaches a denoiser to see images in [0, 1] through noise of every strength, in place.

    Returns the mean squared error of the last batch, on the scale of [-1, 1].

    **Arguments**
    - `epochs`, `batch_size`, `rate`: of Adam, whose rate falls by a cosine. Ours, chosen on digits.

    **Source**: Ho et al. 2020, algorithm 1. **Differs**: the share of the signal is cos^2 of a uniform angle (Nichol &
    Dhariwal 2021, arXiv:2102.09672, equation 17, as a continuum).
    """

    def pairs() -> Iterable[tuple[tuple[Tensor, Tensor], Tensor]]:
        for clean in shuffled(2 * x - 1, batch_size, generator):
            angle = torch.rand(len(clean), generator=generator) * math.pi / 2
            share = angle.cos().square().clamp_min(LEAST).to(x)
            noise = torch.randn(clean.shape, generator=generator).to(x)
            yield (noised(clean, share, noise), share), clean

    steps = epochs * -(-len(x) // batch_size)
    error = regress(_Noised(network), pairs(), steps=steps, rate=rate)  # type: ignore[arg-type]
    network.eval().requires_grad_(False)
    return error
