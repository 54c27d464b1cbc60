"""Logits so large that the gradient of a cross-entropy is exactly zero."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom
from .thresholds import GAP


@dataclass(frozen=True, kw_only=True)
class Underflow(Symptom):
    """The soft-max of a cross-entropy is 1 to the last digit; other objectives see nothing of it.

    **Source**: Carlini & Wagner 2016, arXiv:1607.04311.
    """

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        dead = s.statistics.get("dead_at_logits", 0.0)
        size = s.statistics.get("largest_logit", 0.0)
        return (
            f"logits up to {size:.3g} saturate the softmax of a cross-entropy: on {dead:.0%} of the examples its "
            "gradient is exactly zero"
        )

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where that gradient is dead on a notable share, and the standard attack was misled."""
        return m.dead_cross_entropy > 0.1 and m.naive_gap >= GAP


UNDERFLOW = Underflow(name="underflow", mechanism="vanishing", asks=Asks.RESCALE)
