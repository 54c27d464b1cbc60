"""The networks of `purified.py` and `explained.py` for the command line, and nothing else of them.

`purified.md` has the commands.
"""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses import DefenseGAN, DiffPure
from unmask.defenses.detectors import AttributeSteering, AttributionMap, Detection
from unmask.zoo import CNN

WEIGHTS = Path(__file__).with_name("weights")


def plain() -> nn.Module:
    """The undefended CNN of digits."""
    network = CNN(8)
    network.load_state_dict(load_file(WEIGHTS / "digits_plain.safetensors"))
    return network.eval()


DEFENCES = {
    "projection": DefenseGAN(generator=str(WEIGHTS / "digits_generator.safetensors")),
    "diffusion": DiffPure(denoiser=str(WEIGHTS / "digits_denoiser.safetensors")),
}

DETECTORS = {
    "leave_one_out": AttributionMap,
    "saliency": partial(AttributionMap, attribution="gradient"),
    "steering": AttributeSteering,
}
RATE = 0.05  # of false positives
FITTED = 1000  # training images that a detector is made of; the threshold is set on the others


@cache
def detection(name: str) -> Detection:
    """One of the detectors, held to its rate."""
    train = load("digits", split="train")
    detector = DETECTORS[name](plain(), train.x[:FITTED])
    generator = torch.Generator().manual_seed(0)
    return Detection.at(RATE, detector, train.x[FITTED:], generator=generator, batch=100)


def projection() -> nn.Module:
    """Behind a projection onto what a generator makes."""
    return _alone("projection")


def diffusion() -> nn.Module:
    """Behind noise and its removal by a diffusion model."""
    return _alone("diffusion")


def leave_one_out() -> nn.Module:
    """Beside a detector of maps that say what each pixel adds to the predicted logit."""
    return _alone("leave_one_out")


def saliency() -> nn.Module:
    """The same of gradient times input."""
    return _alone("saliency")


def steering() -> nn.Module:
    """Beside a detector that strengthens the neurons which see parts of the image."""
    return _alone("steering")


def _alone(name: str) -> nn.Module:
    """The defended network, without the surrogate that its defence knows of."""
    defence = DEFENCES[name] if name in DEFENCES else detection(name)
    network = defence.wrap(Classifier(plain())).network
    assert isinstance(network, nn.Module)
    return network
