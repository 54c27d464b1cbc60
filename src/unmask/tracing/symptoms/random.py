"""Numbers that are drawn: no offence, until an attack loses its way on gradients that scatter."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom
from .thresholds import GAP

# Gradients of two draws that agree as well as this lead a standard attack where their mean would. Ours: of the fixtures
# whose noise misleads it 0.37 to 0.58, of noise that does not 0.73 and more.
STEADY = 0.7


@dataclass(frozen=True, kw_only=True)
class Random(Symptom):
    """A source of randomness that the logits depend on."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        effect = s.statistics.get("change_of_logits", float("nan"))
        return "it draws random numbers" + (
            f": a logit moves by up to {effect:.3g}" if effect == effect else ""
        )

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where the standard attack lost something that luck does not explain, on gradients that scatter."""
        return not m.deterministic and m.gained >= GAP and not m.steady >= STEADY

    def harmless(self, s: Suspect, m: Measurements) -> str:
        """As `Symptom.harmless`."""
        return "" if m.deterministic else "draws random numbers; hides nothing"


@dataclass(frozen=True, kw_only=True)
class Drawn(Symptom):
    """A draw by the input itself, beside another way for the gradient."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        return "what is drawn here follows the input, and no gradient tells how"

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where the winner of the race follows what is drawn on average."""
        return m.gap >= GAP and s.group in m.repaired


DRAWN = Drawn(name="drawn", mechanism="shattered", asks=Asks.FOLLOW_DRAWS)
RANDOM = Random(name="random", mechanism="stochastic", asks=Asks.AVERAGE)
