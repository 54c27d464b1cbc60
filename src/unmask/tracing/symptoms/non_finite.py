"""A gradient that becomes NaN or infinite on its way back."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom


@dataclass(frozen=True, kw_only=True)
class NonFinite(Symptom):
    """The real gradient arrives finite and leaves NaN or infinite."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        spoiled = s.statistics.get("spoiled", 0.0)
        return f"on {spoiled:.0%} of the examples the gradient becomes NaN or infinite here"

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Wherever it reached the input of an example: no attack can follow it."""
        return m.non_finite > 0


NON_FINITE = NonFinite(name="non_finite", mechanism="exploding", asks=Asks.FINITE)
