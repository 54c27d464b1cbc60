"""Random losses: of pixels, and of activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import UnusableInput
from .activations import ActivationsChanged
from .base import RandomDefense, Transformed


class _DropPixels(nn.Module):
    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand_like(x[:, :1]) >= self.rate
        return x * kept


@dataclass(frozen=True, kw_only=True)
class PixelDrop(RandomDefense):
    """Sets random pixels to zero, all channels of a pixel together.

    **Fields**
    - `rate`: probability that a pixel is lost.
    - `passes`, `average`: as `RandomDefense` has them.

    **Source**: Hosseini, Kannan & Poovendran 2019, arXiv:1905.00180. **Differs**: they also train with lost
    pixels, and lose far more of them.
    """

    rate: float = 0.1

    def __post_init__(self) -> None:
        _refuse("PixelDrop", self.rate)

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        return self.randomised(classifier, Transformed(_DropPixels(self.rate), classifier.network))


class _DropActivations(nn.Module):
    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, h: Tensor) -> Tensor:
        return F.dropout(h, self.rate, training=True)  # in eval mode too: that is the defence


@dataclass(frozen=True, kw_only=True)
class TestTimeDropout(RandomDefense):
    """Dropout that stays on at inference, after every activation function.

    **Fields**
    - `rate`: probability that an activation is lost; the others are divided by `1 - rate`.
    - `passes`, `average`: as `RandomDefense` has them.

    **Source**: Wang et al. 2018, arXiv:1809.05165 (defensive dropout). **Differs**: theirs acts on one fully
    connected layer of a network trained with dropout.
    """

    __test__ = False  # its name looks like a test's to pytest

    rate: float = 0.1

    def __post_init__(self) -> None:
        _refuse("TestTimeDropout", self.rate)

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        network = ActivationsChanged(classifier.network, _DropActivations(self.rate))
        return self.randomised(classifier, network)


def _refuse(name: str, rate: float) -> None:
    if not 0 <= rate < 1:
        raise UnusableInput(f"`{name}` has rate={rate}; give a number in [0, 1)")
