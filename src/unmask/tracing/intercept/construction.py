"""Which line of the user's source built each module: what to name when torch's own layers do harm."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from torch import nn

from ...built_at import note, watching


@contextmanager
def construction_sites(kind: Any = nn.Module) -> Iterator[None]:
    """Records, for every module built inside the block, the user's line that built it. Nests.

    The line is the innermost one that is not part of torch, of the standard library, of our own machinery or, where
    the user's code asked for it, of a library, and not in the `__init__` of the very module being built:
    `self.act = Round()` is the line, not `super().__init__()`. Objects of another `kind` are watched if one is given.
    A layer whose weight is exchanged for a tensor of a type of its own, as a quantiser does, is another layer from then
    on: its line is the one that did this.
    """
    original, register = kind.__init__, nn.Module.register_parameter
    opener = sys._getframe(2)  # this generator, contextlib's `__enter__`, then whoever wrote the `with`

    def keep(built: Any, start: FrameType) -> None:
        note(built, _building_line(built, start, opener))

    def recording(built: Any, *args: Any, **kwargs: Any) -> None:
        original(built, *args, **kwargs)
        keep(built, sys._getframe(1))

    def exchanging(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
        before = type(module._parameters.get(name))
        register(module, name, param)
        if before is nn.Parameter and param is not None and type(param) is not before:
            keep(module, sys._getframe(1))

    kind.__init__ = recording
    nn.Module.register_parameter = exchanging  # pyright: ignore[reportAttributeAccessIssue]
    try:
        with watching(construction_sites):
            yield
    finally:
        kind.__init__ = original
        nn.Module.register_parameter = register  # pyright: ignore[reportAttributeAccessIssue]


def _building_line(module: Any, start: FrameType, opener: FrameType) -> tuple[str, int] | None:
    # Here, for that file asks this one where modules were built.
    from .sites import is_library, is_user_file

    inside: tuple[str, int] | None = None  # a library, which says less than who asked it to build

    frame: FrameType | None = start
    while frame is not None:
        code = frame.f_code
        own = code.co_name == "__init__" and frame.f_locals.get(code.co_varnames[0]) is module
        if not own and is_library(code.co_filename):
            inside = inside or (code.co_filename, frame.f_lineno)
        elif not own and is_user_file(code.co_filename):
            return code.co_filename, frame.f_lineno
        if frame is opener:  # further out stands whoever started the program, who built nothing
            return inside
        frame = frame.f_back
    return inside
