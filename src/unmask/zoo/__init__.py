"""Small standard architectures: `[batch, channels, height, width]` in [0, 1] in, logits out, untrained."""

from .cnn import CNN
from .mlp import MLP
from .normalize import Normalize
from .preact_resnet18 import PreActResNet18
from .resnet20 import ResNet20
from .strided_cnn import StridedCNN

__all__ = ["CNN", "MLP", "Normalize", "PreActResNet18", "ResNet20", "StridedCNN"]
