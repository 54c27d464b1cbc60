"""A small convolutional network for images of 8 to 32 pixels."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn


class CNN(nn.Module):
    """3x3 convolutions with ReLU, all but the first with stride 2, then two linear layers.

    **Arguments**
    - `size`: height and width of the image, in pixels.
    - `channels`, `classes`: of the input and the output.
    - `widths`: output channels of each convolution.
    - `hidden`: width of the linear layer before the logits.
    - `normalize`: a layer applied to the image first, such as `Normalize`, or None.

    >>> import torch
    >>> CNN(8)(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        size: int,
        *,
        channels: int = 1,
        classes: int = 10,
        widths: Sequence[int] = (16, 32),
        hidden: int = 64,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        layers: list[nn.Module] = [] if normalize is None else [normalize]
        for depth, width in enumerate(widths):
            layers += [nn.Conv2d(channels, width, 3, stride=1 if depth == 0 else 2, padding=1), nn.ReLU()]
            channels, size = width, size if depth == 0 else (size + 1) // 2
        layers += [
            nn.Flatten(),
            nn.Linear(channels * size * size, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        ]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of images in [0, 1]."""
        return self.layers(x)
