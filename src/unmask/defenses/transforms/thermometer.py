"""Every pixel as a thermometer: one input for each level that it reaches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import UnusableInput
from .base import Images, Preprocessing, Surrogate

Code = Float[Tensor, "batch code height width"]


def _edges(levels: int, like: Tensor) -> Tensor:
    """Lower ends of the levels, `[levels, 1, 1]`: k / levels for k = 0, …, levels - 1."""
    return (torch.arange(levels, device=like.device, dtype=like.dtype) / levels)[:, None, None]


def soft_code(x: Images, levels: int) -> Code:
    """The code with slopes: level k fills linearly while the pixel passes from (k - 1/2) to (k + 3/2) / levels.

    That is as wide as two levels, so that a pixel always has a slope somewhere.
    """
    filled = ((x[:, :, None] - _edges(levels, x)) * levels + 0.5) / 2
    return filled.clamp(0, 1).flatten(1, 2)


class _Thermometer(nn.Module):
    def __init__(self, levels: int, decode: bool):
        super().__init__()
        self.levels, self.decode = levels, decode

    def forward(self, x: Images) -> Tensor:
        with torch.no_grad():
            code = (x[:, :, None] > _edges(self.levels, x)).to(x)
            return code.mean(2) if self.decode else code.flatten(1, 2)


@dataclass(frozen=True, kw_only=True)
class Thermometer(Preprocessing):
    """Codes every pixel as as many ones as it reaches levels, then zeros: `levels` channels for each one.

    The network behind it must take `channels * levels` channels, ordered by channel, then level; it is trained on
    the code. Its surrogate is a code that fills linearly (`soft_code`).

    **Fields**
    - `levels`: 16 in the paper.
    - `decode`: add the ones up again, for networks that were trained on plain images; what is left is a
      quantisation to `levels` steps. Ours.

    **Source**: Buckman et al. 2018, "Thermometer Encoding: One Hot Way To Resist Adversarial Examples", ICLR.
    """

    levels: int = 16
    decode: bool = False

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise UnusableInput(f"`Thermometer` has levels={self.levels}; give at least 2")

    def transformation(self) -> nn.Module:
        """As `Preprocessing.transformation`."""
        return _Thermometer(self.levels, self.decode)

    @property
    def surrogate(self) -> Surrogate | None:
        """As `Preprocessing.surrogate`."""
        return None if self.decode else partial(soft_code, levels=self.levels)
