"""Stages without which a verdict stands: they may fail, and the audit does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ...foreign import failure, wants_to_stop
from ...state.limits import limits
from ...state.process import back_afterwards
from ...state.settings import arithmetic, surroundings
from ..context import Subject

T = TypeVar("T")


def tried(subject: Subject, stage: str, call: Callable[[], T], otherwise: T, *, halves: bool = False) -> T:
    """What the stage finds; `otherwise`, with a warning in the report, where anything is raised in it.

    Somebody's network is asked there in ways for which it was not written, and not through the door: what it changes
    in the process is put back. Ctrl-C still ends the audit. Where the stage `halves` its batches, want of memory goes
    on to whoever does.
    """
    try:
        with back_afterwards(limits() + arithmetic(subject.device.type) + surroundings()):
            return call()
    except BaseException as error:
        if wants_to_stop(error) or (halves and isinstance(error, torch.OutOfMemoryError)):
            raise
        subject.warn(f"{stage}: none, for finding them raised {failure(error)}")
        return otherwise
