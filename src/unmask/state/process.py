"""Settings of the whole process as they were before somebody's code ran: compared and put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .settings import Setting, arithmetic, random_numbers, surroundings


class Settings:
    """Settings as they were when this was made.

    >>> import torch
    >>> settings = Settings(arithmetic())
    >>> torch.set_default_dtype(torch.float64)
    >>> settings.put_back(), torch.get_default_dtype()
    (["torch's default dtype"], torch.float32)
    """

    def __init__(self, of: list[Setting]):
        self._held = [(setting, setting.read()) for setting in of]

    def put_back(self) -> list[str]:
        """Writes what is no longer as it was; returns the names of it."""
        changed = []
        for setting, before in self._held:
            if setting.read() != before:
                changed.append(setting.name)
                setting.write(before)
        return changed


@contextmanager
def back_afterwards(of: list[Setting]) -> Iterator[None]:
    """After the block, however it ends, these settings are as before."""
    settings = Settings(of)
    try:
        yield
    finally:
        settings.put_back()


@contextmanager
def kept(told: Callable[[list[str]], object] = lambda changed: None) -> Iterator[None]:
    """Within the block somebody's file is loaded; afterwards the process is as it was before.

    Random numbers are put back without a word: nearly every file seeds them, and it decides nothing. `sys.path` stays,
    so that what is imported later is found, and so do hooks of all modules: they are part of what is deployed.

    **Arguments**
    - `told`: is given the names of the settings that had changed, if any had.
    """
    settings, drawn = Settings(arithmetic() + surroundings()), Settings(random_numbers())
    try:
        yield
    finally:
        changed = settings.put_back()
        drawn.put_back()
        if changed:
            told(changed)
