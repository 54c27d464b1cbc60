"""Plain training: the undefended network that every defence is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from .loop import Loop, Seen
from .run import Images, Labels, Run


@dataclass(frozen=True, kw_only=True)
class Standard(Loop):
    """Cross-entropy on the images as they are; a threat is used for validation only.

    **Cost**: one forward and one backward per example and epoch.
    **Source**: see `Loop`.
    """

    hardens: ClassVar[bool] = False

    def learn(self, run: Run, x: Images, y: Labels) -> Seen:
        logits = run.logits(x)
        loss = nn.functional.cross_entropy(logits, y)
        run.descend(loss)
        return Seen(loss, logits)
