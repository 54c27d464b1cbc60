"""What a network keeps from one call to the next and answers by."""

from __future__ import annotations

from torch import Tensor

from ..classifier import Classifier
from ..state import State
from .comparison import Points, asked, distances

FIRST = "first call"  # its random numbers


def memory(
    classifier: Classifier, points: Points, state: State, first: Tensor, probe: Points
) -> tuple[str, ...]:
    """What the network keeps from one call to the next and answers by; empty where nothing is.

    Three calls with equal seeds, one of other points between the first two, and the very first call, whose answers to
    `probe` were `first`, are compared as they come and from a state that is put back before each.

    **Cost**: five forwards of the points; ten where the first answers differ.
    """

    def repeats(classifier: Classifier) -> bool:
        once = asked(classifier, points)
        asked(classifier, Points(points.x.flip(0), points.streams), "between")
        twice, thrice = asked(classifier, points), asked(classifier, points)
        later = asked(classifier, probe, FIRST)
        pairs = ((once, twice), (twice, thrice), (first, later))
        return all(bool((distances(a, b) <= 1e-6).all()) for a, b in pairs)

    if repeats(classifier):
        return ()
    changed = state.changes()
    return changed if changed and repeats(classifier.replace(state=state.only(changed))) else ()


def said_of_state(kept: tuple[str, ...], counts: tuple[str, ...]) -> list[str]:
    """The line about what is put back before every call."""
    names = kept or counts
    if not names:
        return []
    some = ", ".join(f"`{name}`" for name in names[:5]) + (", ..." if len(names) > 5 else "")
    if kept:
        return [
            f"the network keeps state between calls ({some}), and answers by it: the state is put back before every "
            "call, so that what is judged is a network that nobody has asked yet"
        ]
    return [f"the network counts its calls ({some}): this state is put back before every call"]
