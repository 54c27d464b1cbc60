"""What a process that was split off makes of itself before it runs somebody's code."""

from __future__ import annotations

import contextlib
import faulthandler
import os

import torch


def keep_quiet() -> None:
    """No terminal, no core dump, no word of a crash, and one thread: a forked pool of threads hangs.

    For the child alone; whoever split it off says what happened.
    """
    with contextlib.suppress(Exception):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    faulthandler.disable()
    torch.set_num_threads(1)
