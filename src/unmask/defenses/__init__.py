"""Defences to be attacked: each wraps a classifier."""

from .base import Defense, RandomDefense
from .dropping import PixelDrop, TestTimeDropout
from .ensemble import RandomMember
from .noise import InputNoise, WeightNoise
from .purifiers import DefenseGAN, DiffPure
from .resizing import CropEnsemble, RandomResizePad
from .sap import SAP
from .smoothing import RandomizedSmoothing, SmoothedCertificate
from .transforms import (
    JPEG,
    BitDepth,
    Composed,
    KWinners,
    LowRank,
    Median,
    NonLocalMeans,
    PixelDeflection,
    Preprocessing,
    Reformer,
    Thermometer,
    TotalVariation,
)

__all__ = [
    "JPEG",
    "SAP",
    "BitDepth",
    "Composed",
    "CropEnsemble",
    "Defense",
    "DefenseGAN",
    "DiffPure",
    "InputNoise",
    "KWinners",
    "LowRank",
    "Median",
    "NonLocalMeans",
    "PixelDeflection",
    "PixelDrop",
    "Preprocessing",
    "RandomDefense",
    "RandomMember",
    "RandomResizePad",
    "RandomizedSmoothing",
    "Reformer",
    "SmoothedCertificate",
    "TestTimeDropout",
    "Thermometer",
    "TotalVariation",
    "WeightNoise",
]
