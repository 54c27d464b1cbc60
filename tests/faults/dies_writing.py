"""Runs `unmask` in a process that dies while it writes: `python dies_writing.py N MOMENT WORDS…`.

At the Nth file of the journal it is killed by SIGKILL at that moment: `half`, with half of the file on the disk;
`whole`, with all of it there and not yet under its name; or `renamed`, with the name not yet on the disk for good.
Under `torchrun` so does the process of rank 0, which alone keeps a journal.
"""

from __future__ import annotations

import os
import runpy
import signal
import stat
import sys
from typing import Any

MOMENTS = ("half", "whole", "renamed")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(last: int, moment: str) -> None:
    """Counts the files that are made safe from here on; the `last` one is the end."""
    made_safe, written = os.fsync, 0

    def fsync(file: Any) -> None:
        nonlocal written
        about = os.fstat(file)
        is_folder = stat.S_ISDIR(about.st_mode)
        written += not is_folder
        if written == last and is_folder == (moment == "renamed"):
            if moment == "half":
                os.ftruncate(file, about.st_size // 2)
            die()
        made_safe(file)

    os.fsync = fsync


if __name__ == "__main__":
    count, at, *words = sys.argv[1:]
    arm(int(count), at)
    sys.argv = ["unmask", *words]
    runpy.run_module("unmask", run_name="__main__", alter_sys=True)
