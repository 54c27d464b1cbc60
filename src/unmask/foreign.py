"""Code that is not ours: where in it an exception was raised, and whether a person wants the run to end."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from .errors import Interrupted, first_line

_TORCH = importlib.util.find_spec("torch")  # found and not loaded: a wrong option is told at once
assert _TORCH is not None
_MACHINERY = tuple(os.path.dirname(os.path.abspath(str(f))) + os.sep for f in (__file__, _TORCH.origin))
_STDLIB = sysconfig.get_paths()["stdlib"] + os.sep
SIGNALS = (signal.SIGINT, signal.SIGTERM)

# Seconds within which a second signal is the same wish: who stops a job often tells process and group. Ours.
_AGAIN = 1.0

_told, _when, _process = False, 0.0, 0


def _stop(number: int, frame: FrameType | None) -> None:
    global _told, _when
    if os.getpid() != _process:  # somebody's code has split this one off: it ends as any process does
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if _told and time.monotonic() - _when < _AGAIN:
        return
    _told, _when = True, time.monotonic()
    raise Interrupted


@contextmanager
def signals_heard() -> Iterator[None]:
    """Within the block Ctrl-C and SIGTERM raise `Interrupted`, which nobody else's code raises by accident.

    A signal that is ignored (`nohup`, a shell's background) stays ignored. Outside the main thread nothing happens.
    """
    global _told, _process
    _told, _process, before = False, os.getpid(), {}
    try:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, _stop)
    except ValueError:  # only the main thread may
        before = {}
    try:
        yield
    finally:
        _told = False
        for number, handler in before.items():
            signal.signal(number, handler)


def wants_to_stop(error: BaseException | None = None) -> bool:
    """Whether a person, or the system by SIGTERM, wants the run to end.

    `sys.exit`, `GeneratorExit` and the like out of somebody else's code are that code's failures and decide nothing.
    A `KeyboardInterrupt` is one as well where `signals_heard` would know of a real one.
    """
    if _told or isinstance(error, Interrupted):
        return True
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is not _stop


def stop_if_told() -> None:
    """**Raises** `Interrupted` if a signal came whose exception somebody's bare `except` has swallowed."""
    if _told:
        raise Interrupted


def user_line(error: BaseException) -> str:
    """`file:line` of the user's own code that raised it, innermost; empty where none is on the way.

    Other people's packages are named only where the user's own files are not on the way.
    """
    own = packaged = ""
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        installed = f"{os.sep}site-packages{os.sep}" in file
        if not file.startswith(("<", *_MACHINERY)) and (installed or not file.startswith(_STDLIB)):
            place = f"{file}:{traceback.tb_lineno}"
            own, packaged = ("" if installed else place) or own, place
        traceback = traceback.tb_next
    return own or packaged


def failure(error: BaseException) -> str:
    """An exception out of somebody's code in one line: type, message and where it was raised."""
    message, place = first_line(error), user_line(error)
    name = type(error).__name__
    return name + (f": {message}" if message != name else "") + (f" ({place})" if place else "")


def stay() -> None:
    """From now on `os._exit` raises `SystemExit` in this process, so that a network's call of it is told and judged.

    Else it would decide the exit status past everything that is written in Python, while it runs or when the process
    ends. Processes that this one starts leave as ever. What native code does cannot be held.
    """
    process, leave = os.getpid(), os._exit

    def _exit(status: int) -> NoReturn:
        if os.getpid() != process:
            leave(status)
        raise SystemExit(status)

    os._exit = _exit
    sys.modules[os.name].__dict__["_exit"] = _exit  # the module beneath, `posix` or `nt`
