"""What stays of a recorded run: digests of most tensors, the numbers of a few, and the graph only while it is needed.

A run that kept every tensor and its graph would take several times the memory of a backward pass, and an analysis looks
at a dozen runs. So what nobody asks for is not kept, and what turns out to be needed is recorded again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from ...classifier import Classifier
from .passes import record
from .recorder import Keep
from .values import Key, Record, Trace


def nothing(_: Record) -> bool:
    """Keeps digests alone."""
    return False


def of(keys: Collection[Key]) -> Keep:
    """Keeps the tensors of some operations."""
    return lambda r: r.key in keys


def sparing(keep: Keep, most: int) -> Keep:
    """As `keep`, until all results together exceed so many bytes; nothing from then on."""
    size = 0

    def spare(r: Record) -> bool:
        nonlocal size
        size += sum(v.size for v in r.outputs)
        return size <= most and keep(r)

    return spare


@dataclass(frozen=True, eq=False)
class Recording:
    """How a network is recorded throughout an analysis.

    **Fields**
    - `uncut`, `written`: as of `record`.
    """

    classifier: Classifier
    uncut: bool = True
    written: frozenset[int] = frozenset()
    keep: Keep = nothing

    def __call__(self, x: Tensor, *, seed: int, keep: Keep | None = None) -> Trace:
        """One recorded run, with its graph.

        **Cost**: one forward, metered.
        """
        return record(
            self.classifier,
            x,
            seed=seed,
            uncut=self.uncut,
            written=self.written,
            keep=self.keep if keep is None else keep,
        )

    def again(self, trace: Trace, keys: Collection[Key]) -> Trace:
        """The same run with the tensors of some operations, without its graph.

        **Cost**: one forward, metered; none where nothing is asked for that was not kept.
        """
        asked = [r for r in trace.records if r.key in keys]
        if all(v.kept is not None for r in asked for v in (*r.inputs, *r.outputs)):
            return trace
        return let_go(self(trace.x.detach(), seed=trace.seed, keep=of(keys)))


def forget(trace: Trace) -> Trace:
    """Keeps the digests alone of what a run's operations were given and gave. Returns the trace."""
    for r in trace.records:
        for v in (*r.inputs, *r.outputs):
            v.forget()
    return trace


def let_go(trace: Trace) -> Trace:
    """Lets go of a run's graph; that its values carried a gradient stays known. Returns the trace."""
    for r in trace.records:
        for v in (*r.inputs, *r.outputs):
            v.let_go, v.was_leaf, v.edge = v.carries, v.leaf, None
    trace.logits, trace.x = trace.logits.detach(), trace.x.detach()
    return trace
