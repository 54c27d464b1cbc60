"""The examples that an attack still works on, and the best point found for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..objectives import Objective
from ..randomness import Streams
from ..types import per_example
from ..worst_case import WorstCase

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]


@dataclass(frozen=True)
class Batch:
    """Examples that are attacked together; it shrinks as they are fooled.

    **Fields**
    - `index`: `[batch]`, their places in the batch that the attack was given.
    - `x`, `y`, `streams`, `objective`: clean inputs, labels, randomness and objective of just these examples.
    """

    index: Int[Tensor, " batch"]
    x: Images
    y: Labels
    streams: Streams
    objective: Objective

    @classmethod
    def whole(cls, x: Images, y: Labels, generator: torch.Generator | Streams, objective: Objective) -> Batch:
        """All examples of a run."""
        streams = Streams.of(generator, len(x))
        return cls(torch.arange(len(x), device=x.device), x, y, streams, objective)

    def __len__(self) -> int:
        return len(self.index)

    def take(self, chosen: Int[Tensor, " kept"]) -> Batch:
        """Some of these examples."""
        return Batch(
            self.index[chosen],
            self.x[chosen],
            self.y[chosen],
            self.streams[chosen],
            self.objective.take(chosen),
        )

    def keep(self, stays: Bool[Tensor, " batch"], *state: Any) -> tuple[Batch, *tuple[Any, ...]]:
        """The examples that stay, and their rows of all that an attack carries on from step to step.

        `state` is of tensors `[batch, …]` and of what has a `take` as this has.
        """
        rows = stays.nonzero()[:, 0]
        return self.take(rows), *(s[rows] if isinstance(s, Tensor) else s.take(rows) for s in state)


def overwrite(chosen: Bool[Tensor, " batch"], *pairs: tuple[Tensor, Tensor]) -> None:
    """Writes, for each pair (kept, new) of `[batch, …]`, the `chosen` examples of `new` into `kept`, in place.

    A `where` would touch every pixel of every example; on the CPU the copy of just the rows costs half of it. On
    other devices the rows' number would have to be waited for.
    """
    if chosen.device.type != "cpu":
        for kept, new in pairs:
            torch.where(per_example(chosen, kept), new, kept, out=kept)
        return
    rows = chosen.nonzero().view(-1)
    for kept, new in pairs:
        if len(rows) == len(kept):
            kept.copy_(new)
        elif len(rows):
            kept.index_copy_(0, rows, new.index_select(0, rows))


class Incumbent(WorstCase):
    """The best point so far of every example of a run, and its value: infinity once the example is fooled."""

    def unfooled(self) -> Int[Tensor, " left"]:
        """Indices of the examples that are worth more work."""
        return (self.value != torch.inf).nonzero()[:, 0]

    def fooled(self, batch: Batch, won: Bool[Tensor, " batch"], x_adv: Images) -> None:
        """Takes in the points that won, whatever stood before."""
        self.x_adv[batch.index[won]] = x_adv[won]
        self.value[batch.index[won]] = torch.inf


def restarts(times: int, whole: Batch, best: Incumbent, name: str = "restart") -> Iterator[tuple[int, Batch]]:
    """For each restart its number, from 0, and the examples that are left, with random numbers of its own.

    Ends early once every example is fooled. `name` is that of the random numbers' streams.
    """
    for number in range(times):
        left = best.unfooled()
        if not len(left):
            return
        yield number, whole.take(left)
        whole = replace(whole, streams=whole.streams.fork(name))
