"""The 20-layer residual network for CIFAR-10, and its shallower and wider kin."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes, the shortcut subsamples and pads with zero channels."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - channels_in

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Halves height and width where the stride is 2."""
        out = torch.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        before = self.new_channels // 2
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        return torch.relu(out + shortcut)


class ResNet20(nn.Module):
    """ResNet-20 with option-A shortcuts: 269,722 parameters for three channels and ten classes.

    **Arguments**
    - `channels`, `classes`: of the input and the output.
    - `blocks`: per stage; 1 makes it a ResNet-8.
    - `width`: channels of the first stage; the others have twice and four times as many.
    - `normalize`: a layer applied to the image first, such as `Normalize`, or None.

    **Source**: He et al. 2016, arXiv:1512.03385, section 4.2.
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        classes: int = 10,
        blocks: int = 3,
        width: int = 16,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        self.normalize = nn.Identity() if normalize is None else normalize
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        layers: list[nn.Module] = []
        wide_in = width
        for wide, first_stride in ((width, 1), (2 * width, 2), (4 * width, 2)):
            for stride in (first_stride, *[1] * (blocks - 1)):
                layers.append(BasicBlock(wide_in, wide, stride))
                wide_in = wide
        self.blocks = nn.Sequential(*layers)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of images in [0, 1]."""
        out = torch.relu(self.bn1(self.conv1(self.normalize(x))))
        return self.linear(self.blocks(out).mean((2, 3)))
