"""An autoencoder that moves images towards those it knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...classifier import Classifier, seeded
from ...errors import UnusableInput, first_line
from ...tracing.repair.regions.regression import regress
from ..base import Defense, Transformed, mode_of, undefended
from .base import Images


class Autoencoder(nn.Sequential):
    """MagNet's small convolutional autoencoder, sigmoids throughout.

    **Arguments**
    - `channels`: of the image.
    - `pooled`: halve the image inside, as the paper's first one for MNIST does; it needs even sides. The other, and
      the one for CIFAR-10, do not.
    - `width`: inner channels; 3 in the paper.
    """

    def __init__(self, channels: int = 1, *, pooled: bool = True, width: int = 3):
        def convolution(i: int, o: int) -> list[nn.Module]:
            return [nn.Conv2d(i, o, 3, padding=1), nn.Sigmoid()]

        layers = convolution(channels, width)
        if pooled:
            layers += [nn.AvgPool2d(2), *convolution(width, width), *convolution(width, width)]
            layers += [nn.Upsample(scale_factor=2)]
        layers += [*convolution(width, width), *convolution(width, channels)]
        super().__init__(*layers)


def train_autoencoder(
    network: nn.Module,
    x: Images,
    *,
    generator: torch.Generator,
    noise: float = 0.1,
    epochs: int = 20,
    batch_size: int = 64,
    rate: float = 1e-2,
) -> float:
    """Teaches a network to give back images from noisy ones, in place; returns the mean squared error at the end.

    **Arguments**
    - `noise`: standard deviation of the Gaussian added to the input, in units of the image range; 0.1 in the paper
      on MNIST, 0.025 on CIFAR-10.
    - `epochs`, `batch_size`, `rate`: the paper takes 100 epochs of 256; ours are shorter.

    **Source**: Meng & Chen 2017, section 5.2.
    """

    def batches() -> Iterable[tuple[Tensor, Tensor]]:
        while True:
            order = torch.randperm(len(x), generator=generator)
            for chosen in order.split(batch_size):
                clean = x[chosen]
                yield (clean + noise * torch.randn(clean.shape, generator=generator)).clamp(0, 1), clean

    return regress(network, batches(), steps=epochs * -(-len(x) // batch_size), rate=rate)


@dataclass(frozen=True, kw_only=True)
class Reformer(Defense):
    """Puts an autoencoder in front of the network (MagNet's reformer, without its detectors).

    Its gradient is that of any network: nothing is shattered, the claim was that the attacker does not know it.

    **Fields**
    - `autoencoder`: a trained network from images to images; or the path of a `.safetensors` file with the weights
      of an `Autoencoder`, whose channels, width and pooling are read off them.

    **Source**: Meng & Chen 2017, arXiv:1705.09064.
    """

    autoencoder: nn.Module | str

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`. **Raises** `UnusableInput` for a file that holds no such weights."""
        purify = _read(Path(self.autoencoder)) if isinstance(self.autoencoder, str) else self.autoencoder
        network = Transformed(purify, classifier.network).train(mode_of(classifier.network))
        surrogate = Transformed(purify, undefended(classifier)).train(mode_of(classifier.network))
        return classifier.replace(network=network, surrogate=surrogate)


def _read(file: Path) -> nn.Module:
    try:
        weights = load_file(file)
        first = next(iter(weights[name] for name in sorted(weights) if name.endswith("weight")))
        with seeded(0, torch.device("cpu")):
            network = Autoencoder(first.shape[1], pooled=len(weights) == 10, width=first.shape[0])
        network.load_state_dict(weights)
    except Exception as error:  # safetensors' errors share no base with those of the file system
        raise UnusableInput(f"{file} holds no weights of an `Autoencoder` ({first_line(error)})") from error
    return network.eval()
