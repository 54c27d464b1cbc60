"""Gradient estimators: the axis on which an attack adapts to a defence."""

from .base import Estimate, Exact, GradientEstimator
from .bpda import BPDA, StraightThrough
from .eot import EOT
from .finite_difference import FiniteDifference
from .float64 import Float64
from .gain import LogitScale
from .reduced_gain import ReducedGain
from .smoothing import Smoothing
from .widened import Widened

__all__ = [
    "BPDA",
    "EOT",
    "Estimate",
    "Exact",
    "FiniteDifference",
    "Float64",
    "GradientEstimator",
    "LogitScale",
    "ReducedGain",
    "Smoothing",
    "StraightThrough",
    "Widened",
]
