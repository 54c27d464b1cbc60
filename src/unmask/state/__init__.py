"""What a network holds between two calls, and how it is put back: a function has no memory."""

from .held import State

__all__ = ["State"]
