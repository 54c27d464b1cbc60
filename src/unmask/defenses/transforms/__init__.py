"""Transformations that shatter the gradient: each from its paper, each a `Defense`."""

from .base import Preprocessing
from .bit_depth import BitDepth
from .composed import Composed
from .jpeg import JPEG
from .k_winners import KWinners
from .low_rank import LowRank
from .median import Median
from .non_local_means import NonLocalMeans
from .pixel_deflection import PixelDeflection
from .reformer import Autoencoder, Reformer, train_autoencoder
from .thermometer import Thermometer
from .total_variation import TotalVariation

__all__ = [
    "JPEG",
    "Autoencoder",
    "BitDepth",
    "Composed",
    "KWinners",
    "LowRank",
    "Median",
    "NonLocalMeans",
    "PixelDeflection",
    "Preprocessing",
    "Reformer",
    "Thermometer",
    "TotalVariation",
    "train_autoencoder",
]
