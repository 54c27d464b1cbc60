"""A gradient that does not lead through: zero, no derivative at all, cut, or inside a part that autograd cannot see."""

from __future__ import annotations

from dataclasses import dataclass

from ..suspect import Asks, Measurements, Suspect, Symptom
from .thresholds import GAP, MISLED

# From this on, the change of the logits hardly shrinks with the move: sixteen times smaller, and nearly as large. Ours.
CHAOTIC = 0.8


@dataclass(frozen=True, kw_only=True)
class Lost(Symptom):
    """What an operation does not hand back, although the logits change through it.

    **Fields**
    - `said`: what is wrong with its gradient, in words.
    """

    said: str

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        if s.share != s.share:  # what passes through was not measured
            return self.said
        much = f"{s.share:.0%} of" if s.share < 0.995 else "all of"
        share = f"{much} the change of the logits passes through it"
        if chaotic(s):
            return (
                f"no gradient leads through, yet {share}, and the smallest move changes them as much as the largest: "
                "a pseudo-random function of the input"
            )
        return f"{self.said}, yet {share}"

    def confirmed(self, s: Suspect, m: Measurements) -> bool:
        """Where the gradient is dead, where another or all attacks lead further, or where none could lead anywhere."""
        # NaN explains a failed attack by itself: then a step needs more than a share of the effect.
        led_further = m.gap >= GAP and (not m.non_finite or s.share > 0.5)
        misled = m.gained >= MISLED and s.share > 0.5
        return m.dead_margin >= 0.5 or led_further or misled or (m.deterministic and chaotic(s))


@dataclass(frozen=True, kw_only=True)
class TakesEffect(Lost):
    """Where a decision that has no gradient comes back into the arithmetic, lines after it was made."""

    def sentence(self, s: Suspect) -> str:
        """As `Symptom.sentence`."""
        decided = int(s.statistics.get("decided_at_line", 0))
        return f"the decision of line {decided}, {self.said}, takes effect here"


def chaotic(s: Suspect) -> bool:
    """Whether what passes here is noise that the input seeds: fooled or not, no gradient can follow it."""
    return s.share > 0.5 and s.statistics.get("jump", 0.0) > CHAOTIC


ZERO = Lost(
    name="zero",
    mechanism="shattered",
    asks=Asks.REPLACE,
    hidden=True,
    said="its gradient is exactly zero",
)
DISCRETE = Lost(name="discrete", mechanism="shattered", asks=Asks.REPLACE, said="its result has no gradient")
CUT = Lost(name="cut", mechanism="shattered", asks=Asks.REOPEN, hidden=True, said="the gradient is cut here")
# A scripted, compiled or vmapped part.
OPAQUE = Lost(
    name="opaque", mechanism="shattered", asks=Asks.REPLACE, hidden=True, said="the gradient is cut here"
)
EFFECT = TakesEffect(name="effect", mechanism="shattered", asks=Asks.NOTHING, said="which has no gradient")
