"""Threads of somebody's code that go on after it has returned: they could change anything at any time."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
import time
from types import CodeType, FrameType

import torch

# Seconds in which a thread that is about to end may do so. Ours.
PATIENCE = 1.0
# Seconds in which one that was started without `threading` has begun, so that it is seen. Ours.
BEGIN = 0.02
_PATHS = sysconfig.get_paths()
# Monitors and idle workers of libraries run in these files alone.
_LIBRARIES = tuple(
    os.path.realpath(path) + os.sep
    for path in (_PATHS["stdlib"], _PATHS["purelib"], _PATHS["platlib"], os.path.dirname(torch.__file__))
)


class Threads:
    """The threads of this process when this was made, whoever started them and however.

    >>> threads = Threads()
    >>> threads.left() is None
    True
    """

    def __init__(self):
        self._numbers, self._threads = set(sys._current_frames()), set(threading.enumerate())

    def left(self, patience: float | None = None) -> str | None:
        """Name and place of a later one that runs, or waits to run, code outside of libraries; None if none does.

        A bar's monitor or a pool's idle workers stay as they are. **Cost**: 20 milliseconds, and
        at most `patience` seconds, `PATIENCE` by default, where there is one.
        """
        until = time.monotonic() + (PATIENCE if patience is None else patience)
        time.sleep(BEGIN)
        while (found := self._found()) is not None and time.monotonic() < until:
            time.sleep(0.01)
        return found

    def _found(self) -> str | None:
        known = {thread.ident: thread for thread in threading.enumerate()}
        for number, frame in sys._current_frames().items():
            thread = known.get(number)
            if number in self._numbers and (thread is None or thread in self._threads):
                continue
            place = _of_frames(frame) or _of_code(thread)
            if place:
                return f"`{thread.name if thread else number}` ({place})"
        return None


def _of_frames(frame: FrameType | None) -> str:
    """`file:line` of the innermost code of a user's that a thread is in; empty where it is in none."""
    while frame is not None:
        if not _of_a_library(frame.f_code.co_filename):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def _of_code(thread: threading.Thread | None) -> str:
    """`file:line` of a user's function that a thread, or a timer, has still to call; empty where there is none."""
    for name in ("_target", "function"):
        code = getattr(getattr(thread, name, None), "__code__", None)
        if isinstance(code, CodeType) and not _of_a_library(code.co_filename):
            return f"{code.co_filename}:{code.co_firstlineno}"
    return ""


def _of_a_library(file: str) -> bool:
    return file.startswith("<frozen") or os.path.realpath(file).startswith(_LIBRARIES)
