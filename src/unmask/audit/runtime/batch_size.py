"""How many examples fit: the batch is halved when memory runs out, for good, and a resumed audit remembers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ...classifier import Meter
from .journal import Journal
from .progress import Progress

T = TypeVar("T")


class BatchSize:
    """The batch size of one part of the audit.

    Each part keeps its own, so that what a later part learnt cannot change an earlier one when it is run again.
    """

    def __init__(self, size: int, part: str, journal: Journal | None, progress: Progress):
        self.part, self.journal, self.progress = part, journal, progress
        entry = journal.get(self._key) if journal else None
        self.size: int = entry.record["size"] if entry else size

    @property
    def _key(self) -> str:
        return f"batch size, {self.part}"

    def fitting(self, call: Callable[[int], T], examples: int, meter: Meter) -> T:
        """What `call` returns for the largest batch size that fits; `examples` is the most that it would take.

        What a failed try spent is taken off the meter: a resumed audit does not try again, and must count the same.
        **Raises** `torch.OutOfMemoryError` if a single example is too much.
        """
        before = meter.snapshot()
        while True:
            try:
                return call(self.size)
            except torch.OutOfMemoryError:
                tried = min(self.size, examples)
                if tried <= 1:
                    raise
                vars(meter).update(vars(before))
                self._halve(tried)

    def _halve(self, tried: int) -> None:
        self.size = tried // 2
        self.progress.note(f"out of memory: going on with batches of {self.size}")
        if self.journal:
            self.journal.put(self._key, {"size": self.size})
