"""The networks that hold, for `unmask audit networks.py:mnist` and `:cifar10`; the commands stand in `weights/`."""

from pathlib import Path

from safetensors.torch import load_file

from unmask.zoo import ResNet20, StridedCNN

WEIGHTS = Path(__file__).parent / "weights"


def mnist():
    """Linf, 0.3."""
    return _with_weights(StridedCNN(28), "strided_cnn_mnist")


def cifar10():
    """Linf, 8/255, on CIFAR-10 (JPEG)."""
    return _with_weights(ResNet20(blocks=1, width=40), "wider_resnet8_cifar10_jpeg")


def _with_weights(network, name):
    network.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))
    return network.eval()
