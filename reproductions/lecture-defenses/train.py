"""Trains the networks behind the table: `python reproductions/lecture-defenses/train.py [NAME]`, minutes in all.

Undefended throughout: cross-entropy on clean images, as they come out of the transformation.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from unmask.classifier import Classifier
from unmask.data import Data, load
from unmask.defenses import KWinners, PixelDrop, Thermometer
from unmask.defenses.transforms import Autoencoder, train_autoencoder
from unmask.training import Standard
from unmask.zoo import CNN, ResNet20

WEIGHTS = Path(__file__).with_name("weights")
RESNET = Path(__file__).parents[1] / "sap" / "weights" / "resnet20_cifar10_jpeg.safetensors"
LEVELS = 16
SHARE = 0.1
LOST = 0.5  # of the pixels, by the network that is trained with it. Ours: the source loses more, of larger networks


def cnn(size: int, channels: int = 1) -> CNN:
    """The small network of MNIST and digits."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return CNN(size, channels=channels)


def train_cnn(data: Data, kind: str, *, epochs: int, batch_size: int) -> CNN:
    """`plain`, on the thermometer's code (`thermometer`), or with k winners for ReLUs (`k_winners`)."""
    network = cnn(data.x.shape[-1], LEVELS if kind == "thermometer" else 1)
    if kind == "thermometer":
        code = Thermometer(levels=LEVELS).transformation()(data.x)
        data = Data(code, data.y, data.name, data.split, data.index)
    trained: nn.Module = network
    if kind == "k_winners":
        trained = KWinners(share=SHARE).wrap(Classifier(network)).network  # type: ignore[assignment]
    recipe = Standard(epochs=epochs, batch_size=batch_size, learning_rate=0.1, pad=1, mirror=False)
    recipe.fit(trained, data, None, generator=torch.Generator().manual_seed(0))
    return network.eval()


def pixel_drop(network: nn.Module, data: Data, recipe: Standard) -> nn.Module:
    """The network trained on, in place, with pixels lost at random in every pass, as they are lost when it predicts."""
    dropping = PixelDrop(rate=LOST).wrap(Classifier(network)).network
    assert isinstance(dropping, nn.Module)
    recipe.fit(dropping, data, None, generator=torch.Generator().manual_seed(0))
    return network.eval()


def resnet() -> nn.Module:
    """The undefended ResNet-20 of the reproduction of SAP."""
    network = ResNet20()
    network.load_state_dict(load_file(RESNET))
    return network.eval()


def autoencoder(data: Data, *, noise: float, pooled: bool, epochs: int, width: int = 3) -> nn.Module:
    """MagNet's reformer."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = Autoencoder(data.x.shape[1], pooled=pooled, width=width)
    error = train_autoencoder(
        network, data.x, generator=torch.Generator().manual_seed(0), noise=noise, epochs=epochs
    )
    print(f"autoencoder of {data.name}: mean squared error {error:.5f}")
    return network


def main(wanted: list[str]) -> None:
    torch.set_num_threads(1)
    mnist = load("mnist", split="train", examples=20_000)
    makers = {
        "mnist_plain": lambda: train_cnn(mnist, "plain", epochs=3, batch_size=128),
        "mnist_thermometer": lambda: train_cnn(mnist, "thermometer", epochs=3, batch_size=128),
        "mnist_k_winners": lambda: train_cnn(mnist, "k_winners", epochs=3, batch_size=128),
        "mnist_reformer": lambda: autoencoder(
            load("mnist", split="train", examples=5000), noise=0.1, pooled=True, epochs=15
        ),
        "cifar10_reformer": lambda: autoencoder(
            load("cifar10", split="train", examples=5000), noise=0.025, pooled=False, epochs=10
        ),
        "cifar10_pixel_drop": lambda: pixel_drop(
            resnet(), load("cifar10", split="train"), Standard(epochs=6, learning_rate=0.1, half=True)
        ),
    }
    for name in wanted or makers:
        began = time.perf_counter()
        network = makers[name]()
        save_file(network.state_dict(), WEIGHTS / f"{name}.safetensors")
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
