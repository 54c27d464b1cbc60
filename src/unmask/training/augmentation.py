"""Images moved and mirrored at random: what a label does not depend on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

Images = Float[Tensor, "batch channels height width"]


def shifted(x: Images, pad: int, *, generator: torch.Generator) -> Images:
    """Each image moved by up to `pad` pixels both ways, its border reflected."""
    padded = nn.functional.pad(x, (pad,) * 4, mode="reflect")
    batch, channels, height, width = x.shape
    top = torch.randint(2 * pad + 1, (batch, 1), generator=generator)
    left = torch.randint(2 * pad + 1, (batch, 1), generator=generator)
    rows = (top + torch.arange(height))[:, None, :, None]
    columns = (left + torch.arange(width))[:, None, None, :]
    return padded[
        torch.arange(batch)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns
    ]


def mirrored(x: Images, *, generator: torch.Generator) -> Images:
    """Half of the images, left and right exchanged."""
    chosen = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, x.flip(3), x)
