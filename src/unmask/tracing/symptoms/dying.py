"""A gradient that dies on its way back through an operation which has a derivative, but not where the input is."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom
from .thresholds import GAP


@dataclass(frozen=True, kw_only=True)
class Dying(Symptom):
    """A derivative that is there and practically zero."""

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where the gradient is dead on a notable share, or a repair leads further; and something was lost by it."""
        dead = max(m.dead_margin, m.dead_cross_entropy)
        return (dead > 0.1 or m.gap >= GAP) and max(m.gap, m.naive_gap) >= GAP


@dataclass(frozen=True, kw_only=True)
class Vanished(Dying):
    """The real gradient arrives alive and leaves dead."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        return f"on {s.statistics.get('killed', 0.0):.0%} of the examples the gradient dies here"


@dataclass(frozen=True, kw_only=True)
class Saturated(Dying):
    """The result changes although the operation's own derivative denies it."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        if "together" in s.statistics:
            return (
                "its output changes although the derivative of the operations that make it is practically zero: "
                "together they are saturated"
            )
        return "its output changes although its own derivative is practically zero: it is saturated"


VANISHED = Vanished(name="vanished", mechanism="vanishing", asks=Asks.LESS_GAIN)
SATURATED = Saturated(name="saturated", mechanism="vanishing", asks=Asks.LESS_GAIN)
