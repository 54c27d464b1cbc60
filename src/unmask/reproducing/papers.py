"""Where the reproductions are, and one of them as a module."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import UnusableInput

PACKAGE = Path(__file__).resolve().parents[1]
# Published figure, and how to measure ours.
Rows = dict[str, tuple[str, Callable[[], dict[str, Any]]]]


def folder() -> Path:
    """`reproductions/` of the checkout, or what the wheel has of it."""
    checkout = PACKAGE.parents[1] / "reproductions"
    return checkout if checkout.is_dir() else PACKAGE / "reproductions"


def names() -> list[str]:
    """Of all reproductions."""
    return sorted(p.parent.relative_to(folder()).as_posix() for p in folder().rglob("run.py"))


def paper(name: str) -> ModuleType:
    """The `run.py` of one reproduction. **Raises** `UnusableInput` where there is none."""
    file = folder() / name / "run.py"
    if name not in names():
        raise UnusableInput(f"there is no reproduction {name!r}; choose one of {', '.join(names())}")
    spec = importlib.util.spec_from_file_location(f"unmask_reproduction_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def chosen(rows: Rows, only: str | None, name: str) -> list[str]:
    """The row of that name, else those whose names contain the text; all without one.

    **Raises** `UnusableInput` where there is none.
    """
    if only is None or only in rows:
        return [only] if only is not None else list(rows)
    found = [row for row in rows if only in row]
    if not found:
        raise UnusableInput(f"no row of {name} contains {only!r}; there are {'; '.join(rows)}")
    return found
