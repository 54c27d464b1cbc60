"""What an audit tells whoever watches it."""

from __future__ import annotations

from typing import Protocol

from ..records import MaskingFinding


class Progress(Protocol):
    """Listens to an audit. Calls come from one thread, in order; none may raise."""

    def stage(self, name: str) -> None:
        """A new part of the plan begins, for instance `trace` or `race`."""

    def update(self, upper_bound: float, done: int, total: int) -> None:
        """Robust accuracy is at most `upper_bound`; `done` of `total` units of the stage are finished."""

    def finding(self, finding: MaskingFinding) -> None:
        """Masking was found."""

    def note(self, text: str) -> None:
        """One line worth telling, such as a batch halved for want of memory."""


class Silent:
    """Tells nobody."""

    def stage(self, name: str) -> None:
        """Ignored."""

    def update(self, upper_bound: float, done: int, total: int) -> None:
        """Ignored."""

    def finding(self, finding: MaskingFinding) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""
