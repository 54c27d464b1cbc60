"""A backward pass that somebody wrote by hand: no offence, until an attack goes further without it."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom
from .thresholds import GAP


@dataclass(frozen=True, kw_only=True)
class Declared(Symptom):
    """The backward of a custom function whose result depends on the input and that nothing else suspects."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        return "the backward that it declares leads an attack less far than what it computes"

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where the winner of the race differentiates this function's own forward."""
        return m.gap >= GAP and s.group in m.repaired


DECLARED = Declared(name="declared", mechanism="shattered", asks=Asks.OWN_FORWARD)
