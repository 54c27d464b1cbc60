"""Attacks. Each is a frozen record with a pure `run`; the judge alone says what succeeded."""

from .apgd import APGD
from .base import Attack, GradientAttack
from .carlini_wagner import CarliniWagner
from .fab import FAB
from .fgsm import FGSM
from .hop_skip_jump import HopSkipJump
from .pgd import PGD
from .rays import RayS
from .square import Square
from .targeted_apgd import TargetedAPGD

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "PGD",
    "Attack",
    "CarliniWagner",
    "GradientAttack",
    "HopSkipJump",
    "RayS",
    "Square",
    "TargetedAPGD",
]
