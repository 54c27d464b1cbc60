"""What is attacked: a data set, a radius, undefended networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from train import autoencoder, cnn, pixel_drop, resnet, train_cnn

from unmask.data import Data, load
from unmask.defenses.transforms import Autoencoder
from unmask.threat import Linf
from unmask.training import Standard
from unmask.zoo import ResNet20

HERE = Path(__file__).parent


class Networks(dict[str, nn.Module]):
    """Networks by name, made when they are asked for."""

    def __init__(self, makers: dict[str, Callable[[], nn.Module]]):
        super().__init__()
        self.makers = makers

    def __missing__(self, name: str) -> nn.Module:
        self[name] = self.makers[name]()
        return self[name]


@dataclass(frozen=True)
class Bench:
    """One data set with its networks.

    **Fields**
    - `threat`: Linf, the lecture's radius.
    - `data`: test images, of which the first `attacked` are attacked (by the table of random defences the first
      `drawn`), and the first `clean` give the clean accuracy.
    - `other`: training images, to learn surrogates on.
    - `networks`: `plain`, and where a defence needs one of its own, `thermometer`, `k_winners`, `reformer`,
      `pixel_drop`.
    - `share`: of the winners; what the network was trained with, else what it bears.
    """

    name: str
    threat: Linf
    data: Data
    other: Tensor
    networks: Networks
    share: float
    attacked: int = 64
    drawn: int = 100
    clean: int = 500
    steps: int = 40
    training: int = 250


def mnist() -> Bench:
    """Small CNNs, ours (`train.py`)."""
    return Bench(
        name="MNIST",
        threat=Linf(epsilon=0.3),
        data=load("mnist", split="test", examples=1000),
        other=load("mnist", split="train", examples=400).x,
        networks=Networks(
            {
                "plain": lambda: _stored(cnn(28), "mnist_plain"),
                "thermometer": lambda: _stored(cnn(28, 16), "mnist_thermometer"),
                "k_winners": lambda: _stored(cnn(28), "mnist_k_winners"),
                "reformer": lambda: _stored(Autoencoder(1), "mnist_reformer"),
            }
        ),
        share=0.1,
    )


def cifar10() -> Bench:
    """The ResNet-20 of the reproduction of SAP; for the thermometer's code, its first layer is spread over it."""
    plain = resnet()
    return Bench(
        name="CIFAR-10 (JPEG)",
        threat=Linf(epsilon=8 / 255),
        data=load("cifar10", split="test", examples=500),
        other=load("cifar10", split="train", examples=160).x,
        networks=Networks(
            {
                "plain": lambda: plain,
                "thermometer": lambda: nn.Sequential(_Decoder(16), plain).eval(),
                "k_winners": lambda: plain,
                "reformer": lambda: _stored(Autoencoder(3, pooled=False), "cifar10_reformer"),
                "pixel_drop": lambda: _stored(ResNet20(), "cifar10_pixel_drop"),
            }
        ),
        share=0.3,
        clean=300,
        steps=20,
        training=120,
    )


class _Decoder(nn.Module):
    """The mean over a pixel's code: a linear first layer."""

    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def forward(self, code: Tensor) -> Tensor:
        return code.unflatten(1, (-1, self.levels)).mean(2)


def digits() -> Bench:
    """In seconds, trained here."""
    train = load("digits", split="train")
    recipe = {"epochs": 12, "batch_size": 32}
    with_drops = Standard(epochs=12, batch_size=32, learning_rate=0.1, pad=1, mirror=False)
    return Bench(
        name="digits",
        threat=Linf(epsilon=0.2),
        data=load("digits", split="test"),
        other=train.x[:240],
        networks=Networks(
            {
                "plain": lambda: train_cnn(train, "plain", **recipe),
                "thermometer": lambda: train_cnn(train, "thermometer", **recipe),
                "k_winners": lambda: train_cnn(train, "k_winners", **recipe),
                "reformer": lambda: autoencoder(train, noise=0.1, pooled=False, epochs=20, width=8),
                "pixel_drop": lambda: pixel_drop(cnn(8), train, with_drops),
            }
        ),
        share=0.1,
        attacked=40,
        drawn=40,
        steps=30,
        training=100,
    )


def _stored(network: nn.Module, name: str) -> nn.Module:
    network.load_state_dict(load_file(HERE / "weights" / f"{name}.safetensors"))
    return network.eval()
