"""MagNet's detectors: how badly an autoencoder of clean images reconstructs, and what that does to the prediction."""

from __future__ import annotations

import torch
from torch import nn

from ...errors import UnusableInput
from ...types import per_example
from .base import Detector, Images, Scores


class ReconstructionError(Detector):
    """Mean over the pixels of |x - ae(x)|^p.

    **Arguments**
    - `autoencoder`: images to images, trained on clean ones.
    - `p`: 1 or 2 in the paper.

    **Cost**: one pass of the autoencoder.
    **Source**: Meng & Chen 2017, arXiv:1705.09064, section 4.2.1.
    """

    def __init__(self, autoencoder: nn.Module, *, p: float = 2.0):
        super().__init__()
        if not p >= 1:
            raise UnusableInput(f"p is {p}; give at least 1")
        self.autoencoder, self.p = autoencoder, p

    def forward(self, x: Images) -> Scores:
        """The error, `[batch]`."""
        return (x - self.autoencoder(x)).abs().pow(self.p).flatten(1).mean(1)


class Divergence(Detector):
    """Jensen-Shannon divergence between the softened predictions for an image and for its reconstruction, in nats.

    **Arguments**
    - `network`: the undefended network.
    - `autoencoder`: images to images, trained on clean ones.
    - `temperature`: the logits are divided by it; 10 and 40 in the paper.

    **Cost**: two forward passes of the network, one of the autoencoder.
    **Source**: Meng & Chen 2017, arXiv:1705.09064, section 4.2.2.
    """

    def __init__(self, network: nn.Module, autoencoder: nn.Module, *, temperature: float = 10.0):
        super().__init__()
        if not temperature > 0:
            raise UnusableInput(f"the temperature is {temperature}; give a positive number")
        self.network, self.autoencoder, self.temperature = network, autoencoder, temperature

    def forward(self, x: Images) -> Scores:
        """The divergence, `[batch]`, from 0 to log 2."""
        first = (self.network(x.clone()) / self.temperature).log_softmax(1)
        second = (self.network(self.autoencoder(x)) / self.temperature).log_softmax(1)
        middle = torch.logaddexp(first, second) - torch.log(first.new_tensor(2.0))
        return sum((p.exp() * (p - middle)).sum(1) for p in (first, second)) / 2  # type: ignore[return-value]


class AnyOf(Detector):
    """Rejects what any of several detectors rejects: the largest score, each less its threshold, in its own spread.

    **Arguments**
    - `detectors`: each with the threshold it is held to. MagNet shares the false-positive rate out among them.
    - `x`: clean images, on which the spreads are measured so that no detector's unit drowns the others.

    **Source**: Meng & Chen 2017, arXiv:1705.09064, section 5.
    """

    def __init__(self, detectors: list[tuple[Detector, float]], x: Images):
        super().__init__()
        self.detectors = nn.ModuleList(detector for detector, _ in detectors)
        thresholds = torch.tensor([threshold for _, threshold in detectors])
        with torch.no_grad():
            spreads = torch.stack([detector(x).std() for detector, _ in detectors]).clamp_min(1e-12)
        self.register_buffer("thresholds", thresholds)
        self.register_buffer("spreads", spreads)

    def forward(self, x: Images) -> Scores:
        """The largest of the standardised scores, `[batch]`."""
        scores = torch.stack([detector(x) for detector in self.detectors])
        thresholds, spreads = self.get_buffer("thresholds"), self.get_buffer("spreads")
        return ((scores - per_example(thresholds, scores)) / per_example(spreads, scores)).amax(0)
