"""Bounds on robustness: certified from below, estimated in between, exact where the network is small."""

from .certified import Certificate, certified_radius, certify, certify_box
from .clever import Clever, CleverScore, mark
from .exact import ExactRadius, exact_radius

__all__ = [
    "Certificate",
    "Clever",
    "CleverScore",
    "ExactRadius",
    "certified_radius",
    "certify",
    "certify_box",
    "exact_radius",
    "mark",
]
