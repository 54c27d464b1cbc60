"""The controls that there are: what each is called, and what its failure says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A control of an audit. Which diagnostic asks its question, and of which attack, a suite says (`suites.py`).

    **Fields**
    - `name`: under which the report lists it; it also names the control's random numbers and its entry in the journal.
    - `exact`: asks about the gradient that a standard attack follows, not about the attacks that the audit chose.
    - `misled`: asks whether attacks follow a gradient that misleads them. Its failure leaves the verdict open, unless
      it passes when it is asked again of all that the audit found and can do.
    - `weak`: asks in another way whether the attacks are as strong as they should be.
    """

    name: str
    exact: bool = False
    misled: bool = False
    weak: bool = False

    @property
    def of_misses(self) -> bool:
        """Whether its failure only says that attacks may have missed something."""
        return self.misled or self.weak


SAME = Check("equal images, equal answers")
NULL_ATTACK = Check("null attack")
UNBOUNDED = Check("unbounded epsilon", weak=True)
CURVE = Check("epsilon monotonicity", weak=True)  # the control whose points are drawn
NOISE = Check("random noise of the same size", misled=True)
ONE_STEP = Check("one step against many", misled=True)
SEARCH = Check("black box against white box", misled=True)
PLANTED = Check("planted example", misled=True)
SLOPES = Check("gradient against finite difference, exact", exact=True, misled=True)
SHARE = Check("gradient share, exact", exact=True, weak=True)
REPEATABILITY = Check("repeatability")  # says how much the gradients of two draws differ
RANDOMNESS = Check("randomness against none", weak=True)
LEVELS = Check("images of the data's own levels", weak=True)
