"""Bounds on robustness: certified from below, estimated in between, exact where the network is small."""

from .bracket import Bracket, Bracketing, Brackets
from .branch_and_bound import Proof, verify
from .certified import Certificate, certified_radius, certify, certify_box
from .clever import Clever
from .clever_score import CleverScore
from .exact import ExactRadius, exact_radius
from .linear_regions import walk_regions
from .marks import Marked, mark
from .nearest import Nearest, NearestSearch

__all__ = [
    "Bracket",
    "Bracketing",
    "Brackets",
    "Certificate",
    "Clever",
    "CleverScore",
    "ExactRadius",
    "Marked",
    "Nearest",
    "NearestSearch",
    "Proof",
    "certified_radius",
    "certify",
    "certify_box",
    "exact_radius",
    "mark",
    "verify",
    "walk_regions",
]
