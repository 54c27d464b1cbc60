"""Gradient estimators: the axis on which an attack adapts to a defence."""

from .base import Estimate, Exact, GradientEstimator

__all__ = ["Estimate", "Exact", "GradientEstimator"]
