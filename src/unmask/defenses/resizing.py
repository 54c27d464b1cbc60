"""Random geometry: resize and pad, and crops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import UnusableInput
from .base import RandomDefense, Transformed

Images = Float[Tensor, "batch channels height width"]


def _integer(low: int, high: int) -> int:
    """One integer in [low, high], from torch's global generator, as a third-party layer would draw it."""
    return int(torch.randint(low, high + 1, ()))


class _ResizePad(nn.Module):
    def __init__(self, smallest: float, largest: float):
        super().__init__()
        self.smallest, self.largest = smallest, largest

    def forward(self, x: Images) -> Images:
        side = x.shape[-1]
        size = _integer(round(self.smallest * side), round(self.largest * side) - 1)
        room = round(self.largest * side) - size
        left, top = _integer(0, room), _integer(0, room)
        resized = F.interpolate(x, size=(size, size), mode="nearest")
        return F.pad(resized, (left, room - left, top, room - top))


@dataclass(frozen=True, kw_only=True)
class RandomResizePad(RandomDefense):
    """Resizes square images to a random size, and pads them with zeros, at random, to a fixed larger one.

    One size and one place are drawn a pass, for the whole batch. The network must accept images of
    `largest * side`, as those with global pooling do.

    **Fields**
    - `smallest`, `largest`: sizes as multiples of the image's side: 1 to 331/299 in the paper.
    - `passes`, `average`: as `RandomDefense` has them.

    **Source**: Xie et al. 2018, arXiv:1711.01991.
    """

    smallest: float = 1.0
    largest: float = 331 / 299

    def __post_init__(self) -> None:
        if not 0 < self.smallest < self.largest:
            raise UnusableInput(
                f"`RandomResizePad` has smallest={self.smallest}, largest={self.largest}; give 0 < smallest < largest"
            )

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        network = Transformed(_ResizePad(self.smallest, self.largest), classifier.network)
        return self.randomised(classifier, network)


class _Crop(nn.Module):
    def __init__(self, share: float):
        super().__init__()
        self.share = share

    def forward(self, x: Images) -> Images:
        batch, channels, height, width = x.shape
        tall, wide = max(1, round(self.share * height)), max(1, round(self.share * width))
        rows = _places(batch, height - tall, tall, x.device)
        columns = _places(batch, width - wide, wide, x.device)
        of = torch.arange(batch, device=x.device)[:, None, None, None]
        every = torch.arange(channels, device=x.device)[:, None, None]
        crop = x[of, every, rows[:, None, :, None], columns[:, None, None, :]]
        return F.interpolate(crop, size=(height, width), mode="bilinear", align_corners=False)


def _places(batch: int, room: int, size: int, device: torch.device) -> Int[Tensor, "batch size"]:
    """`size` adjacent indices for each example, from a random first one in [0, room]."""
    first = torch.randint(room + 1, (batch, 1), device=device)
    return first + torch.arange(size, device=device)


@dataclass(frozen=True, kw_only=True)
class CropEnsemble(RandomDefense):
    """Crops each image at a random place, rescales the crop to full size, and averages over crops.

    **Fields**
    - `share`: side of the crop as a share of the image's: 90/224 in the paper; small images bear less.
    - `passes`: number of crops, 30 in the paper.
    - `average`: as `RandomDefense` has it; the paper averages `probabilities`.

    **Source**: Guo et al. 2018, arXiv:1711.00117, section 4.1.
    """

    share: float = 0.8
    passes: int = 30

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UnusableInput(f"`CropEnsemble` has share={self.share}; give a number in (0, 1]")

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        return self.randomised(classifier, Transformed(_Crop(self.share), classifier.network))
