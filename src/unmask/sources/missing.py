"""An optional library that is not there: one line with the command that brings it."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from ..errors import UnusableInput, first_line


def optional(module: str, extra: str, what: str) -> ModuleType:
    """Imports a library that only one kind of source needs. **Raises** `UnusableInput` with how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        own = missing == module.partition(".")[0]
        reason = "is not installed" if own else f"cannot be imported ({first_line(error)})"
        raise UnusableInput(
            f"{what} needs {module}, which {reason}; run pip install 'unmask[{extra}]'"
        ) from error
