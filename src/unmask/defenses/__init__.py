"""Defences to be attacked: each wraps a classifier."""

from .base import Defense
from .dropping import PixelDrop, TestTimeDropout
from .ensemble import RandomMember
from .noise import InputNoise, WeightNoise
from .resizing import CropEnsemble, RandomResizePad
from .sap import SAP
from .smoothing import RandomizedSmoothing, SmoothedCertificate

__all__ = [
    "SAP",
    "CropEnsemble",
    "Defense",
    "InputNoise",
    "PixelDrop",
    "RandomMember",
    "RandomResizePad",
    "RandomizedSmoothing",
    "SmoothedCertificate",
    "TestTimeDropout",
    "WeightNoise",
]
