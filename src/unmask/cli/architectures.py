"""The zoo's networks by name, as `unmask train` builds them and as what it writes loads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES = (
    "mlp",
    "sigmoid_mlp",
    "relu_mlp",
    "cnn",
    "strided_cnn",
    "wide_resnet8",
    "wider_resnet8",
    "resnet20",
    "preact_resnet18",
)


def architecture(name: str, shape: Sequence[int], classes: int) -> nn.Module:
    """One of the zoo's networks, untrained, for images of `shape` `[channels, height, width]`."""
    from torch import nn

    from ..zoo import CNN, MLP, PreActResNet18, ResNet20, StridedCNN

    channels, height, width = shape
    if name in ("sigmoid_mlp", "relu_mlp"):  # the three hidden layers of the papers on saturation
        activation = nn.Sigmoid if name == "sigmoid_mlp" else nn.ReLU
        return MLP([channels * height * width, 200, 200, 200, classes], activation=activation)
    if name == "mlp":
        return MLP([channels * height * width, 200, 200, classes])
    if name == "cnn":
        return CNN(height, channels=channels, classes=classes)
    if name == "strided_cnn":
        return StridedCNN(height, channels=channels, classes=classes)
    if name in ("wide_resnet8", "wider_resnet8"):  # as many parameters as ResNet-20 has; as many as 2 MB hold
        width = 32 if name == "wide_resnet8" else 40
        return ResNet20(channels=channels, classes=classes, blocks=1, width=width)
    return {"resnet20": ResNet20, "preact_resnet18": PreActResNet18}[name](channels=channels, classes=classes)


def target_file(name: str, shape: Sequence[int], classes: int) -> str:
    """A Python file whose `network` loads the weights beside it: what `unmask audit` takes."""
    return f'''"""The network that `unmask train` wrote beside this file."""

from pathlib import Path

from safetensors.torch import load_file

from unmask.cli.architectures import architecture


def network():
    """In eval mode."""
    built = architecture({name!r}, {list(shape)}, {classes})
    built.load_state_dict(load_file(Path(__file__).with_name("network.safetensors")))
    return built.eval()
'''
