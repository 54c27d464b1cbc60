"""Images and labels to audit on: named sets, Hugging Face's, folders, tables, files of arrays."""

from .arrays import check
from .loading import Data, load, load_training

__all__ = ["Data", "check", "load", "load_training"]
