"""The 18-layer pre-activation residual network that the adversarial training papers use on CIFAR-10."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PreActBlock(nn.Module):
    """Normalise, ReLU, convolve, twice; where the shape changes, the shortcut is a 1x1 convolution."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        changes_shape = stride != 1 or channels_in != channels
        self.shortcut = nn.Conv2d(channels_in, channels, 1, stride, bias=False) if changes_shape else None

    def forward(self, x: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch c2 h2 w2"]:
        """Halves height and width where the stride is 2."""
        activated = torch.relu(self.bn1(x))
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        out = self.conv1(activated)
        return self.conv2(torch.relu(self.bn2(out))) + shortcut


class PreActResNet18(nn.Module):
    """PreAct ResNet-18: 11,172,170 parameters for three channels and ten classes.

    **Arguments**
    - `channels`, `classes`: of the input and the output.
    - `normalize`: a layer applied to the image first, such as `Normalize`, or None.

    **Source**: He et al. 2016, arXiv:1603.05027; the CIFAR-10 form with a 3x3 stem, as in Wong et al. 2020,
    arXiv:2001.03994.
    """

    def __init__(self, *, channels: int = 3, classes: int = 10, normalize: nn.Module | None = None):
        super().__init__()
        self.normalize = nn.Identity() if normalize is None else normalize
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        wide_in = 64
        for wide, first_stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            for stride in (first_stride, 1):
                blocks.append(PreActBlock(wide_in, wide, stride))
                wide_in = wide
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(512)
        self.linear = nn.Linear(512, classes)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of images in [0, 1]."""
        out = self.blocks(self.conv1(self.normalize(x)))
        return self.linear(torch.relu(self.bn(out)).mean((2, 3)))
