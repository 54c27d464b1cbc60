"""Gaussian noise, on the input or on the weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import Unsupported, UnusableInput
from ..state.exchanged import call_with
from .base import RandomDefense, Transformed


class Noise(nn.Module):
    """Adds independent Gaussian noise of standard deviation `sigma`."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        """A noisy copy."""
        return x + self.sigma * torch.randn_like(x)


@dataclass(frozen=True, kw_only=True)
class InputNoise(RandomDefense):
    """Adds independent Gaussian noise to every pixel, unclipped.

    **Fields**
    - `sigma`: its standard deviation in units of the image range.
    - `passes`, `average`: as `RandomDefense` has them.

    **Source**: Liu et al. 2018, arXiv:1712.00673 (random self-ensemble; they add noise in front of every
    convolution and train with it). **Differs**: in front of the first only, and on a network as it is.
    """

    sigma: float = 0.1

    def __post_init__(self) -> None:
        _refuse_negative("InputNoise", self.sigma)

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        return self.randomised(classifier, Transformed(Noise(self.sigma), classifier.network))


class _NoisyWeights(nn.Module):
    def __init__(self, network: nn.Module, strength: float):
        super().__init__()
        self.network = network
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        noisy = {
            name: w + self.strength * w.detach().std() * torch.randn_like(w) if w.ndim > 1 else w
            for name, w in self.network.named_parameters()
        }
        return call_with(self.network, noisy, x)


@dataclass(frozen=True, kw_only=True)
class WeightNoise(RandomDefense):
    """Adds Gaussian noise to every weight tensor, once a pass for the whole batch.

    **Fields**
    - `strength`: standard deviation of the noise as a multiple of that of the tensor's own entries.
    - `passes`, `average`: as `RandomDefense` has them.

    Gains and biases (tensors of one dimension) stay as they are.

    **Source**: He, Rakin & Fan 2019, arXiv:1811.09310 (parametric noise injection). **Differs**: one fixed
    strength; theirs is learnt by layer, within adversarial training.
    """

    strength: float = 0.1

    def __post_init__(self) -> None:
        _refuse_negative("WeightNoise", self.strength)

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`. **Raises** `Unsupported` for a network that is no `nn.Module`."""
        network = classifier.network
        if not isinstance(network, nn.Module):
            raise Unsupported(
                f"`WeightNoise` needs a torch.nn.Module, for it changes parameters; this network is a "
                f"{type(network).__name__}"
            )
        return self.randomised(classifier, _NoisyWeights(network, self.strength))


def _refuse_negative(name: str, size: float) -> None:
    if not size >= 0:
        raise UnusableInput(f"`{name}` has noise of size {size}; give a number that is zero or larger")
