"""Batches of an audit's steps: done by every process, or read from the journal, and what they spent."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ...classifier import Meter
from ..runtime.batch_size import BatchSize
from ..runtime.journal import Journal
from ..runtime.processes import Processes
from ..runtime.progress import Progress

# Makes named tensors of the examples at some places, each with an example per entry.
Work = Callable[[Tensor], dict[str, Tensor]]


class Rounds:
    """Runs work on batches of examples, so that it neither runs twice nor is counted twice.

    **Arguments**
    - `meter`: counts what this process spends.
    - `batch_size`: examples in a batch, at first; less where memory does not suffice.
    - `journal`: holds every finished batch; None where nothing is written.
    - `processes`: share the examples of every batch.
    - `elsewhere`: counts what an interrupted run and other processes spent; a meter of its own by default.
    """

    def __init__(
        self,
        meter: Meter,
        batch_size: int,
        journal: Journal | None,
        progress: Progress,
        processes: Processes,
        elsewhere: Meter | None = None,
    ):
        self.memory = BatchSize(batch_size, "attacks", journal, progress)
        self.journal, self.processes = journal, processes
        self.memory.size = processes.first(lambda: self.memory.size)
        self.elsewhere = Meter() if elsewhere is None else elsewhere
        self._meter = meter

    @property
    def size(self) -> int:
        """Examples in one round of all processes."""
        return self.memory.size * self.processes.count

    def run(self, key: str, part: Tensor, work: Work) -> tuple[dict[str, Tensor], Meter, float]:
        """One round on the examples at `part`, or on the first of them where no more fit.

        Returns what was found by name, with those examples as `part`; the passes spent; and seconds.
        """
        entry = self.processes.first(lambda: self.journal.get(key) if self.journal else None)
        if entry is not None:
            spent = Meter(**entry.record["meter"])
            self.replay(spent)
            return {k: t.to(part.device) for k, t in entry.tensors.items()}, spent, entry.record["seconds"]
        began, before = time.perf_counter(), self._meter.snapshot()

        def shared(size: int) -> tuple[Tensor, list[dict[str, Tensor]]]:
            some = part[: size * self.processes.count]
            mine = self.processes.share(some)
            return some, self.processes.attempt(lambda: _at_hand(work(mine)) if len(mine) else {})

        largest_share = math.ceil(len(part) / self.processes.count)
        part, found = self.memory.fitting(shared, largest_share, self._meter)
        meters = self.processes.gather(self._meter.since(before))
        self._spend(meters)
        spent, took = Meter(), time.perf_counter() - began
        for meter in meters:
            spent.add(meter)
        tensors = {"part": part, **_joined([f for f in found if f], part.device)}
        if self.journal:
            self.journal.put(key, {"meter": vars(spent), "seconds": took}, tensors)
        return tensors, spent, took

    def over(self, examples: Tensor, work: Work) -> dict[str, Tensor]:
        """Work on all those examples, batch after batch; never read from the journal."""
        before = self._meter.snapshot()

        def share() -> tuple[list[dict[str, Tensor]], Meter]:
            parts = [part for part in self.processes.share(examples).split(self.memory.size) if len(part)]
            return [_at_hand(work(part)) for part in parts], self._meter.since(before)

        found = self.processes.attempt(share)
        self._spend([meter for _, meter in found])
        return _joined([seen for some, _ in found for seen in some], examples.device)

    def total(self) -> Meter:
        """Everything spent, including what an interrupted run had spent before."""
        total = self._meter.snapshot()
        total.add(self.elsewhere)
        return total

    def replay(self, spent: Meter) -> None:
        """Counts what an interrupted run had spent before."""
        self.elsewhere.add(spent)

    def _spend(self, meters: list[Meter]) -> None:
        """Counts what the other processes spent."""
        for rank, meter in enumerate(meters):
            if rank != self.processes.rank:
                self.elsewhere.add(meter)


def _at_hand(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k: t.cpu() for k, t in found.items()}


def _joined(parts: list[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    """Tensors of several parts of the examples, one behind the other; `again` counts examples in its second axis."""
    return {k: torch.cat([p[k] for p in parts], int(k == "again")).to(device) for k in parts[0]}
