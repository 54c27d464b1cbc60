"""Attacks. Each is a frozen record with a pure `run`; the judge alone says what succeeded."""

from .base import Attack, GradientAttack
from .pgd import PGD

__all__ = ["PGD", "Attack", "GradientAttack"]
