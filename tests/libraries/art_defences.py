"""ART classifiers, one for each preprocessing defence that runs on images at prediction, without a second network.

Their images are `[batch, channels, height, width]`, as the network takes them.
"""

import warnings
from functools import cache

import torch
from tests.libraries.digits import fit, trained_mlp
from torch import nn

plain = cache(trained_mlp)
LEVELS = 10


def classifier(defence, network=None):
    from art.estimators.classification import PyTorchClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return PyTorchClassifier(
            network or plain(), nn.CrossEntropyLoss(), (1, 8, 8), 10, clip_values=(0.0, 1.0),
            preprocessing_defences=[defence],
        )  # fmt: skip


def squeezed():
    from art.defences.preprocessor import FeatureSqueezing

    return classifier(FeatureSqueezing(clip_values=(0.0, 1.0), bit_depth=2))  # guilty


def smoothed():
    from art.defences.preprocessor import SpatialSmoothing

    return classifier(SpatialSmoothing(window_size=3, channels_first=True))  # guilty


def smoothed_in_torch():
    from art.defences.preprocessor import SpatialSmoothingPyTorch

    return classifier(SpatialSmoothingPyTorch(window_size=3, channels_first=True))


def compressed():
    from art.defences.preprocessor import JpegCompression

    return classifier(JpegCompression(clip_values=(0.0, 1.0), quality=50, channels_first=True))  # guilty


def varied():
    from art.defences.preprocessor import TotalVarMin

    return classifier(TotalVarMin(prob=0.7, lamb=0.05, max_iter=3, clip_values=(0.0, 1.0)))  # guilty


def noised():
    from art.defences.preprocessor import GaussianAugmentation

    noise = GaussianAugmentation(sigma=0.1, augmentation=False, apply_fit=False, apply_predict=True)  # guilty
    return classifier(noise)


def thermometer(x, width=None):
    """`[n, 1, h, w]` to `[n, LEVELS, h, w]`: which levels each pixel has passed, softly over `width` where given."""
    levels = torch.arange(LEVELS).view(1, -1, 1, 1) / LEVELS
    over = x - levels
    return torch.where(levels > 0, over > 0, over > -1).float() if width is None else (over / width).sigmoid()


class Coded(nn.Module):
    """In training the code is made here, at prediction by ART."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64 * LEVELS, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x):
        return self.inner(thermometer(x) if x.shape[1] == 1 else x)


@cache
def coded_network():
    return fit(Coded())


def coded():
    from art.defences.preprocessor import ThermometerEncoding

    encoding = ThermometerEncoding(clip_values=(0.0, 1.0), num_space=LEVELS, channels_first=True)  # guilty
    return classifier(encoding, coded_network())
