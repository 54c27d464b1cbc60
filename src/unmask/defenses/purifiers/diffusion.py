"""Noise, and its removal by a diffusion model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from ...errors import UnusableInput
from ..base import RandomDefense
from ..transforms.base import Images, Preprocessing, Surrogate
from .denoiser import Denoiser, noised
from .weights import stored


def purify(denoiser: nn.Module, x: Images, *, time: float, steps: int) -> Images:
    """Diffuses images in [0, 1] to a time in (0, 1), and samples the way back in so many steps.

    At time t the signal's share of the variance is cos^2(t pi / 2). Each step draws from the Gaussian that leads to
    the next share, given the noisy image and what the denoiser makes of it; the last one is the denoiser's image.

    **Source**: Ho, Jain & Abbeel 2020, arXiv:2006.11239, equations 6, 7 and algorithm 2, over `steps` of the times.
    """
    shares = [math.cos(time * (1 - i / steps) * math.pi / 2) ** 2 for i in range(steps + 1)]
    first = x.new_full((len(x),), shares[0])
    noisy = noised(2 * x - 1, first, torch.randn_like(x))
    for now, then in pairwise(shares):
        clean = denoiser(noisy, x.new_full((len(x),), now))
        if then == 1:
            noisy = clean
            break
        alpha = now / then
        variance = (1 - then) / (1 - now) * (1 - alpha)
        mean = (then**0.5 * (1 - alpha) * clean + alpha**0.5 * (1 - then) * noisy) / (1 - now)
        noisy = mean + variance**0.5 * torch.randn_like(x)
    return ((noisy + 1) / 2).clamp(0, 1)


class _Purification(nn.Module):
    def __init__(self, defense: DiffPure, *, differentiable: bool = False):
        super().__init__()
        self.denoiser = stored(defense.denoiser, Denoiser)
        self.time, self.steps, self.differentiable = defense.time, defense.steps, differentiable

    def forward(self, x: Images) -> Images:
        with torch.set_grad_enabled(self.differentiable and torch.is_grad_enabled()):
            return purify(self.denoiser, x, time=self.time, steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class DiffPure(Preprocessing, RandomDefense):
    """Adds noise to an image and samples it clean again with a diffusion model.

    As samplers are published, it runs without a gradient. The surrogate is the same way back with the same noise,
    differentiated from end to end.

    **Fields**
    - `denoiser`: a trained `Denoiser`; or the path of a `.safetensors` file with its weights.
    - `time`: how far the image is diffused, between 0 and 1: the signal keeps cos^2(time pi / 2) of the variance.
    - `steps`: of the way back.
    - `passes`, `average`: as `RandomDefense` has them; the paper predicts from one sample.

    **Cost**: `steps` passes of the denoiser, counted with the network's as one forward.
    **Source**: Nie et al. 2022, arXiv:2205.07460. Attacked through all its steps, it loses much of what it claimed: Lee
    & Kim 2023, arXiv:2303.09051. **Differs**: a few steps of the discrete chain in the place of a solver of the
    stochastic differential equation; a small perceptron for the U-Net.
    """

    denoiser: nn.Module | str
    time: float = 0.25
    steps: int = 3
    passes: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.time < 1:
            raise UnusableInput(f"`DiffPure` has time={self.time}; give a number between 0 and 1")
        for name in ("steps", "passes"):
            if getattr(self, name) < 1:
                raise UnusableInput(f"`DiffPure` has {name}={getattr(self, name)}; give at least 1")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Purification(self)

    @property
    def surrogate(self) -> Surrogate:
        """The same chain with the same noise, differentiated."""
        return _Purification(self, differentiable=True)

    @property
    def draws(self) -> int:
        """As `Preprocessing.draws`."""
        return self.passes
