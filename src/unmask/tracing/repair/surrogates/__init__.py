"""Smooth surrogates, by operation: of steps, of what is made of their results, and of saturating functions."""

from ...intercept.operations import plain_name as base_name
from .passing import through
from .saturating import CURVES, SHARES
from .shadow import Made, Shadow
from .steps import SMOOTH, typical_width

__all__ = ["CURVES", "SHARES", "SMOOTH", "Made", "Shadow", "base_name", "through", "typical_width"]
