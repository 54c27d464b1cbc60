"""Goodfellow's counterexamples to CLEVER: modules put in front of a fragile network that hide its slope.

**Source**: Goodfellow 2018, arXiv:1804.07870, sections 3 and 4.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import UnusableInput


class Staircase(nn.Module):
    """`ceil(steps * x) / steps`: slope zero almost everywhere, and nowhere farther than `1 / steps` from x.

    >>> Staircase(4)(torch.tensor([0.1, 0.25, 0.3]))
    tensor([0.2500, 0.2500, 0.5000])
    """

    def __init__(self, steps: int = 255):
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return torch.ceil(self.steps * x) / self.steps


class Ramp(nn.Module):
    """The staircase with ramps instead of jumps: Lipschitz with constant `1 / width`.

    `width` in (0, 1] is the share of a step that rises; a point drawn uniformly sees slope zero with probability
    `1 - width`. The paper's figure has `width=0.2`; 1 is the identity.

    >>> Ramp(4, 0.2)(torch.tensor([0.0, 0.025, 0.1, 0.25]))
    tensor([0.0000, 0.1250, 0.2500, 0.2500])
    """

    def __init__(self, steps: int = 255, width: float = 0.2):
        super().__init__()
        if not 0 < width <= 1:
            raise UnusableInput(f"the width of a ramp is {width}; give a share of a step in (0, 1]")
        self.steps = steps
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        step = torch.floor(self.steps * x)
        # Unlike clamp, hardtanh has slope zero at both kinks. It matters at the lower one, where 8-bit pixels and those
        # clipped to the box sit: the slope on its left is zero too.
        rise = F.hardtanh((self.steps * x - step) / self.width, 0.0, 1.0)
        return (step + rise) / self.steps


class SaturatedSigmoid(nn.Module):
    """`sigmoid(gain * (x - 0.5))`: smooth on paper, but its slope underflows.

    Autograd computes the slope as s (1 - s). In float32 s rounds to 1 where its argument passes about 17, in float64
    where it passes about 37; below zero both lose the slope only where s itself underflows.
    """

    def __init__(self, gain: float = 1000.0):
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.gain * (x - 0.5))


class InPrecision(nn.Module):
    """A network computed in another floating-point type; float32 in and out, slopes included."""

    def __init__(self, network: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.network = copy.deepcopy(network).to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x.to(self.dtype)).float()


def counterexamples(network: nn.Module, *, gain: float = 1e7, width: float = 1e-5) -> dict[str, nn.Module]:
    """The five models: `network` behind a staircase, its ramp, and a saturated sigmoid as it is and in two precisions.

    `network` takes images in [0, 1] and is shared by the first three, copied by the last two. The defaults are steep
    enough that a few hundred points of some dozen pixels see next to no slope; more points need steeper ones.
    """
    saturated = nn.Sequential(SaturatedSigmoid(gain), network)
    return {
        "staircase": nn.Sequential(Staircase(), network),
        "ramp": nn.Sequential(Ramp(width=width), network),
        "sigmoid": saturated,
        "float32": InPrecision(nn.Sequential(SaturatedSigmoid(gain), network), torch.float32),
        "float64": InPrecision(nn.Sequential(SaturatedSigmoid(gain), network), torch.float64),
    }
