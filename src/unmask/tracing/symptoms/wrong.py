"""A gradient that does not predict how the operation's result changes at the scale of an attack."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom
from .thresholds import GAP, MISLED


@dataclass(frozen=True, kw_only=True)
class Wrong(Symptom):
    """A slope that lies: a ripple, a staircase of remainders, a backward that is not the forward's."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        cosine = s.statistics.get("cosine", float("nan"))
        return f"its gradient does not say how its output changes (cosine {cosine:.2f} at the attack's scale)"

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where a repair takes accuracy away, or the standard attack is so wrong that a false slope explains it."""
        return _to_blame(s, m) and (m.gap >= GAP or m.gained >= MISLED or m.dead_margin >= 0.5)

    def harmless(self, s: Suspect, m: Measurements) -> str:
        """As `Symptom.harmless`."""
        return "its gradient is not the slope of its output; hides nothing" if _to_blame(s, m) else ""


def _to_blame(s: Suspect, m: Measurements) -> bool:
    # Where gradients are NaN, slopes nearby are steep: torch's own derivatives are not to blame for that.
    return s.kind != "torch" or m.non_finite < 0.5 or s.share > 0.5


WRONG = Wrong(name="wrong", mechanism="shattered", asks=Asks.REPLACE)
