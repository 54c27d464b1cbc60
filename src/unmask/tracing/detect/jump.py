"""Where the logits change most on the way of a move: a step jumps there, a kink does not."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import torch
from torch import Tensor

from ...types import per_example
from ..record.compare import SCALES
from ..record.freeze import logits_with, share_through
from ..record.keeping import Recording, let_go, of
from ..record.values import Key, Record, Trace

# How often the way is halved: what is left of it is 1/128, in which a kink of a network's size loses nothing. Ours.
HALVINGS = 7
# Least part of the whole change that must remain in that piece for it to be a jump. Ours: else about 1/128 does.
JUMP = 0.05


class Jump:
    """The piece of the way between two points in which the logits change most, image by image.

    **Arguments**
    - `base`, `far`: recorded runs at both ends of the way.
    - `keys`: the operations that will be asked about.

    **Cost**: when it is first asked about, one forward for each halving, one at the end and one recorded; then one for
    each question.
    """

    def __init__(self, recording: Recording, base: Trace, far: Trace, keys: Collection[Key]):
        self.recording, self.classifier = recording, recording.classifier
        self.base, self.far, self.seed, self.keys = base, far, base.seed, keys

    @cached_property
    def _piece(self) -> tuple[Trace, Tensor, Tensor] | None:
        """The run at its beginning, the images and logits at its end; None where nothing jumps."""
        a, b = self.base.x.detach(), self.far.x.detach()
        at_a, at_b = self._logits(a), self._logits(b)
        whole = torch.linalg.vector_norm(at_b - at_a)
        for _ in range(HALVINGS):
            middle = (a + b) / 2
            between = self._logits(middle)
            # There and back again is a long way, too: behind a kink the ends may be alike.
            halves = torch.linalg.vector_norm(between - at_a), torch.linalg.vector_norm(at_b - between)
            whole = torch.maximum(whole, halves[0] + halves[1])
            first = per_example((between - at_a).norm(dim=1) > (at_b - between).norm(dim=1), a)
            a, b = torch.where(first, a, middle), torch.where(first, middle, b)
            at_a = torch.where(first.reshape(-1, 1), at_a, between)
            at_b = torch.where(first.reshape(-1, 1), between, at_b)
        if not torch.linalg.vector_norm(at_b - at_a) > JUMP * whole:
            return None
        return let_go(self.recording(a, seed=self.seed, keep=of(self.keys))), b, at_b

    def _logits(self, x: Tensor) -> Tensor:
        return logits_with(self.classifier, x, [], seed=self.seed)

    def share(self, records: list[Record]) -> float:
        """Share of the jump that passes through operations of `base`; 0 where nothing jumps."""
        if self._piece is None:
            return 0.0
        trace, b, at_b = self._piece
        keys = {r.key for r in records}
        there = [r for r in trace.records if r.key in keys]
        return share_through(self.classifier, trace, b, at_b, there, seed=self.seed)


def chaos(base: Trace, moved: dict[float, Trace]) -> float:
    """Change of the logits at the smallest move, over that at the largest: near one where the network is chaotic.

    A smooth function gives the ratio of the moves, noise that is seeded by the input gives one.
    """
    small, large = (
        torch.linalg.vector_norm((moved[scale].logits - base.logits).detach().double())
        for scale in (SCALES[-1], SCALES[0])
    )
    return float(small / large) if large > 0 else 0.0
