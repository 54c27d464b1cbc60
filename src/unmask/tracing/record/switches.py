"""Which of the user's lines switched gradients off."""

from __future__ import annotations

import sys
from types import FrameType

import torch

from ..intercept.sites import Site


class Switches:
    """Follows `no_grad`, `enable_grad` and `set_grad_enabled`, through blocks inside blocks."""

    def __init__(self) -> None:
        self._off_at: Site | None = None
        self._paused: list[Site | None] = []

    @property
    def off_at(self) -> Site | None:
        """The line that switched gradients off; None while they are on."""
        return None if torch.is_grad_enabled() else self._off_at

    def switch(self, on: bool, where: Site) -> None:
        """Called just before torch switches gradients on or off for the user's line at `where`."""
        leaving = _leaving()
        if on and not leaving and not torch.is_grad_enabled():
            self._paused.append(self._off_at)
        elif not on and not leaving:
            self._off_at = where
        elif not on and self._paused:
            self._off_at = self._paused.pop()


def _leaving() -> bool:
    """Whether torch is leaving a block such as `with no_grad()`, rather than entering one."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(8):
        if frame is None or frame.f_code.co_name == "__enter__":
            return False
        if frame.f_code.co_name == "__exit__":
            return True
        frame = frame.f_back
    return False
