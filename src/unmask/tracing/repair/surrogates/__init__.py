"""Smooth surrogates, by operation: of steps, of what is made of their results, and of saturating functions."""

from .passing import through
from .saturating import CURVES
from .shadow import Made, Shadow
from .steps import SMOOTH, base_name, typical_width

__all__ = ["CURVES", "SMOOTH", "Made", "Shadow", "base_name", "through", "typical_width"]
