"""Bounds on robustness: certified from below, estimated in between, exact where the network is small."""

from .bracket import Bracket, Bracketing, Brackets
from .certified import certified_radius, certify
from .clever.estimate import Clever
from .clever.marks import Marked, mark
from .clever.score import CleverScore
from .complete.branch_and_bound import Proof, decide
from .complete.branch_attack import BranchAndBound
from .complete.exact import ExactRadius, exact_radius
from .complete.linear_regions import walk_regions
from .nearest import Nearest, NearestSearch
from .regional import Certificate, certify_box

__all__ = [
    "Bracket",
    "Bracketing",
    "Brackets",
    "BranchAndBound",
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
    "decide",
    "exact_radius",
    "mark",
    "walk_regions",
]
