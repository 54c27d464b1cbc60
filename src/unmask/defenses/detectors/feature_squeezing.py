"""Feature squeezing: how much the prediction changes when detail is taken from the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...errors import UnusableInput
from ...gradients import StraightThrough
from ..transforms import BitDepth, Median
from ..transforms.base import Preprocessing
from .base import Detector, Images, Scores


class FeatureSqueezing(Detector):
    """The largest L1 distance, over the squeezers, between the probabilities of an image and of the squeezed one.

    Most squeezers have no gradient of their own: attack `differentiable()`, and judge on this one.

    **Arguments**
    - `network`: the undefended network.
    - `squeezers`: by default those of the paper for MNIST, one bit and a median of 2 x 2.

    **Cost**: a forward pass of the network, and one for each squeezer.
    **Source**: Xu, Evans & Qi 2018, arXiv:1704.01155, section V-A (a single threshold for the largest distance).
    """

    def __init__(self, network: nn.Module, squeezers: Sequence[Preprocessing] | None = None):
        super().__init__()
        self.squeezers = (BitDepth(bits=1), Median(size=2)) if squeezers is None else tuple(squeezers)
        if not self.squeezers:
            raise UnusableInput("there is no squeezer; give at least one, for instance BitDepth(bits=1)")
        self.network = network
        self.functions: list[Callable[[Tensor], Tensor]] = [s.transformation() for s in self.squeezers]

    def forward(self, x: Images) -> Scores:
        """The largest distance, `[batch]`, from 0 to 2."""
        plain = self.network(x.clone()).softmax(1)
        distances = [(plain - self.network(g(x)).softmax(1)).abs().sum(1) for g in self.functions]
        return torch.stack(distances).amax(0)

    def differentiable(self) -> FeatureSqueezing:
        """Equal in every value; on the way back each squeezer's surrogate takes its place (BPDA)."""
        twin = FeatureSqueezing(self.network, self.squeezers)
        twin.functions = [
            StraightThrough(g, s.surrogate) for g, s in zip(self.functions, self.squeezers, strict=True)
        ]
        return twin
