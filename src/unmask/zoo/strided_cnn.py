"""Two convolutions of 4x4 pixels and stride 2: few multiplications, hence many steps of adversarial training."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class StridedCNN(nn.Module):
    """Two 4x4 convolutions with ReLU, each of which halves the image, then two linear layers.

    **Arguments**
    - `size`: height and width of the image, in pixels; a multiple of 4.
    - `channels`, `classes`: of the input and the output.
    - `widths`: output channels of the two convolutions.
    - `hidden`: width of the linear layer before the logits.
    - `normalize`: a layer applied to the image first, such as `Normalize`, or None.

    **Source**: Wong & Kolter 2018, arXiv:1711.00851: 16 and 32 channels, 100 hidden units.
    **Differs**: half as wide again by default.

    >>> import torch
    >>> StridedCNN(28)(torch.rand(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        size: int,
        *,
        channels: int = 1,
        classes: int = 10,
        widths: tuple[int, int] = (24, 48),
        hidden: int = 128,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        self.layers = nn.Sequential(
            *([] if normalize is None else [normalize]),
            nn.Conv2d(channels, widths[0], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[1], 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(widths[1] * (size // 4) ** 2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of images in [0, 1]."""
        return self.layers(x)
