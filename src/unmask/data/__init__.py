"""Images and labels to audit on: named sets, Hugging Face's, files of arrays."""

from .loading import Data, check, load

__all__ = ["Data", "check", "load"]
