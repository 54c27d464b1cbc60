"""Processes that somebody's code has started and that go on after it has returned."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

# Seconds in which a process that is about to end may do so. Ours.
PATIENCE = 1.0
_SET_SUBREAPER, _GET_SUBREAPER = 36, 37  # of `prctl`
_PROC = Path("/proc")
# Those of libraries that serve a whole process for as long as it runs: who counts shared memory, who starts others when
# told to, and torch's compilers.
_HELPERS = re.compile(r"(resource_tracker|forkserver) import main|torch/_inductor/compile_worker")


class _Process(NamedTuple):
    number: int
    parent: int
    began: str  # in ticks since the system began: numbers are given again


class Children:
    """The processes below this one when this was made, whoever started them. Only on Linux; elsewhere none is seen.

    >>> Children().left() is None
    True
    """

    def __init__(self):
        self._known = {(one.number, one.began) for one in _running()}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within the block a process whose parent ends becomes this one's child, so that no detour hides it.

        Where the block raises, later ones are ended.
        """
        before = _subreaper()
        try:
            yield
        except BaseException:
            self.left(0.0)
            raise
        finally:
            _subreaper(before)

    def left(self, patience: float | None = None) -> str | None:
        """Name and number of a later one that has not ended after `patience` seconds, `PATIENCE` by default.

        None if there is none; else they are ended, but for daemons of `multiprocessing`, which ends them with this
        process and whose pools hang on a lock that a killed one held. What serves a whole process may stay, and what an
        earlier process starts is its own affair. **Cost**: a look at every process of the system.
        """
        until = time.monotonic() + (PATIENCE if patience is None else patience)
        while (found := self._later()) and time.monotonic() < until:
            time.sleep(0.01)
        if not found:
            return None
        said = f"{_called(found[0].number)} (number {found[0].number})"
        daemons = {one.pid for one in multiprocessing.active_children() if one.daemon}
        found = [one for one in found if one.number not in daemons]
        for one in found:
            with contextlib.suppress(OSError):
                os.kill(one.number, signal.SIGKILL)
        for one in found:
            with contextlib.suppress(OSError):  # no child of this process, or waited for meanwhile
                os.waitpid(one.number, 0)
        return said

    def _later(self) -> list[_Process]:
        running, found, parents = _running(), [], [os.getpid()]
        while parents:
            parent = parents.pop()
            for one in running:
                if one.parent != parent:
                    continue
                new, helps = (
                    (one.number, one.began) not in self._known,
                    bool(_HELPERS.search(_words(one.number))),
                )
                found += [one] * (new and not helps)
                parents += [one.number] * (new or helps)
        return found


def _running() -> list[_Process]:
    """All processes that can be seen from here and have not ended."""
    found = []
    for folder in _PROC.iterdir() if sys.platform.startswith("linux") else ():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
                state, parent, *more = stat.rpartition(")")[2].split()
                if state not in "ZX":
                    found.append(_Process(int(folder.name), int(parent), more[17]))
    return found


def _words(number: int) -> str:
    """The command line of a process; empty where it has ended."""
    try:
        return (
            (_PROC / str(number) / "cmdline")
            .read_text(encoding="utf-8", errors="replace")
            .replace("\0", " ")
            .strip()
        )
    except OSError:
        return ""


def _called(number: int) -> str:
    """A process for people: by its name in Python, or its command line."""
    name = next((one.name for one in multiprocessing.active_children() if one.pid == number), "")
    words = "" if name else _words(number)
    copied = words == _words(os.getpid())
    return "that was split off" if copied else f"`{(name or words)[:80]}`"


def _subreaper(on: int = 1) -> int:
    """Whether orphans below this process become its children; what it was before."""
    if not sys.platform.startswith("linux"):
        return 0
    prctl, before = ctypes.CDLL(None).prctl, ctypes.c_int(0)
    prctl(_GET_SUBREAPER, ctypes.byref(before), 0, 0, 0)
    prctl(_SET_SUBREAPER, on, 0, 0, 0)
    return before.value
