"""Normalisation inside the network, so that the threat model always speaks of pixels in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Normalize(nn.Module):
    """Subtracts `mean` and divides by `std`, per channel. Both are constants, kept out of the state dict.

    >>> float(Normalize([0.5], [0.25])(torch.ones(1, 1, 1, 1)))
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch channels h w"]:
        """The standardised image."""
        return (x - self.mean) / self.std
