"""Training recipes, from the undefended network upwards."""

from .base import Epoch, History, Trainer
from .standard import Standard

__all__ = ["Epoch", "History", "Standard", "Trainer"]
