"""Detectors: each says how suspicious an input looks; `Detection` holds one to a false-positive rate."""

from .attribute_steering import AttributeSteering
from .attribution import AttributionMap
from .base import Detection, Detector, Guarded, Layers, suspicion, threshold_at
from .bayesian_uncertainty import BayesianUncertainty
from .feature_squeezing import FeatureSqueezing
from .kernel_density import KernelDensity
from .learned import BinaryDetector
from .local_dimension import LocalDimension
from .magnet import AnyOf, Divergence, ReconstructionError
from .mahalanobis import Mahalanobis

__all__ = [
    "AnyOf",
    "AttributeSteering",
    "AttributionMap",
    "BayesianUncertainty",
    "BinaryDetector",
    "Detection",
    "Detector",
    "Divergence",
    "FeatureSqueezing",
    "Guarded",
    "KernelDensity",
    "Layers",
    "LocalDimension",
    "Mahalanobis",
    "ReconstructionError",
    "suspicion",
    "threshold_at",
]
