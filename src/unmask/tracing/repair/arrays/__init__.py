"""NumPy arrays through which a gradient finds its way."""

from .followed import bare, follow
from .following import arrived, following

__all__ = ["arrived", "bare", "follow", "following"]
