"""Attacks. Each is a frozen record with a pure `run`; the judge alone says what succeeded."""

from .apgd import APGD
from .base import Attack, Cost, GradientAttack, Others, Setting
from .boundary_walk import BoundaryWalk
from .carlini_wagner import CarliniWagner
from .confidence_sweep import ConfidenceSweep
from .coordinate_search import CoordinateSearch
from .fab import FAB
from .feature_matching import FeatureMatching
from .fgsm import FGSM
from .hop_skip_jump import HopSkipJump
from .joint_pgd import JointPGD
from .momentum import MomentumPGD
from .pgd import PGD
from .queried import Queried
from .rays import RayS
from .sparse_pgd import SparsePGD
from .sparse_rs import SparseRS
from .square import Square
from .substitute import Substitute
from .suited import ascent, search
from .targeted_apgd import TargetedAPGD
from .transfer import Transfer

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "PGD",
    "Attack",
    "BoundaryWalk",
    "CarliniWagner",
    "ConfidenceSweep",
    "CoordinateSearch",
    "Cost",
    "FeatureMatching",
    "GradientAttack",
    "HopSkipJump",
    "JointPGD",
    "MomentumPGD",
    "Others",
    "Queried",
    "RayS",
    "Setting",
    "SparsePGD",
    "SparseRS",
    "Square",
    "Substitute",
    "TargetedAPGD",
    "Transfer",
    "ascent",
    "search",
]
