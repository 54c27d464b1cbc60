"""Diagnostics: one question each, asked of a network or of an attack. They change and print nothing."""

from .base import Diagnostic, Reading, Tried, breaks_more
from .black_box import BlackBox
from .gradient_check import GradientCheck
from .gradient_share import GradientShare
from .monotone import Monotone
from .null_attack import NullAttack
from .one_step import OneStep
from .planted import Planted
from .preflight import Preflight, preflight
from .random_noise import RandomNoise, RandomPoints
from .randomness_gain import RandomnessGain
from .repeatability import Repeatability
from .same_answers import SameAnswers
from .unbounded import Unbounded

__all__ = [
    "BlackBox",
    "Diagnostic",
    "GradientCheck",
    "GradientShare",
    "Monotone",
    "NullAttack",
    "OneStep",
    "Planted",
    "Preflight",
    "RandomNoise",
    "RandomPoints",
    "RandomnessGain",
    "Reading",
    "Repeatability",
    "SameAnswers",
    "Tried",
    "Unbounded",
    "breaks_more",
    "preflight",
]
