"""What a network keeps from one call to the next and answers by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..classifier import Classifier, Network
from ..errors import ModelFailed
from ..randomness import Streams
from ..state import State
from .answers import Answer, Recorded, disagreements
from .comparison import SLIGHT, Points, asked, distances

FIRST = "first call"  # its random numbers
MISTAKES = 16  # that are asked about once more. Ours.


def memory(
    classifier: Classifier,
    points: Points,
    state: State,
    first: Tensor,
    probe: Points,
    earlier: Sequence[Answer] = (),
) -> tuple[str, ...]:
    """What the network keeps from one call to the next and answers by; empty where nothing is.

    Three calls with equal seeds, one of other points between the first two, and the very first call, whose answers to
    `probe` were `first`, are compared as they come and from a state that is put back before each. Who gives the same
    answer twice may still have it from another image, as a cache with a coarse key does. So where calls have changed
    anything, what the network said, to points in another order and to an attack `earlier`, is compared with what one
    says that nobody has asked.

    **Cost**: five forwards of the points; ten where the first answers differ; where they do not and something has
    changed, four for three of the questions put again.
    """

    def repeats(classifier: Classifier) -> bool:
        once = asked(classifier, points)
        asked(classifier, backwards, "between")
        twice, thrice = asked(classifier, points), asked(classifier, points)
        later = asked(classifier, probe, FIRST)
        pairs = ((once, twice), (twice, thrice), (first, later))
        return all(bool((distances(a, b) <= 1e-6).all()) for a, b in pairs)

    backwards = Points(points.x.flip(0), points.streams)
    steady, changed = repeats(classifier), state.changes()
    if not changed:
        return ()
    unasked = classifier.replace(state=state.only(changed))
    if not steady:
        return changed if repeats(unasked) else ()
    now = Recorded(classifier.network, "in another order")
    asked(classifier.replace(network=now), backwards)
    said = [answer for answer in earlier if len(answer.x) > 1] + now.answers
    return changed if any(disagreements(unasked, said, seedable=True)) else ()


def judged_alone(classifier: Classifier, points: Points) -> bool:
    """Whether a network that remembers answers otherwise in company: within one batch nothing can be put back."""
    together, alone = asked(classifier, points), asked(classifier.replace(alone=True), points)
    return bool((distances(together, alone) > SLIGHT).any())


def remembered_elsewhere(
    classifier: Classifier,
    elsewhere: Sequence[Network],
    x: Tensor,
    y: Tensor,
    right: Tensor,
    streams: Streams,
) -> str:
    """A sentence where mistakes are none to the network in other processes, which nobody has asked; else empty.

    It says what to do about a memory that `State` cannot see: it cannot be put back, so that what it answers is no
    accuracy of anybody's network.

    **Arguments**
    - `elsewhere`: the network in such processes, the cheapest first.
    - `right`: `[n]`, whether it was right about each image.

    **Cost**: of 16 of the mistakes two forwards alone, and one more for each of `elsewhere` until one differs.
    """
    wrong = (~right).nonzero()[:, 0][:MISTAKES]
    if not len(wrong) or not elsewhere:
        return ""
    some = Points(x[wrong], streams[wrong])
    alone = classifier.replace(alone=True)
    still, again = (asked(alone, some).argmax(1) != y[wrong] for _ in range(2))  # else it was the batch
    if not torch.equal(still, again):  # as luck has it
        return ""
    for network in elsewhere:
        try:
            there = asked(alone.replace(network=network, state=None), some).argmax(1) == y[wrong]
        except ModelFailed:
            continue
        gone = int((still & there).sum())
        if gone > 1:
            return (
                f"{gone} of {len(wrong)} of its mistakes are none where nobody has asked it before: it keeps what it "
                "was asked in a place that cannot be put back (a file, a data base, another process), and answers by "
                "it; keep that in attributes of the module, which are put back before every call, or leave it out"
            )
    return ""


def said_of_state(kept: tuple[str, ...], counts: tuple[str, ...], touched: tuple[str, ...]) -> list[str]:
    """The line about what is put back before every call. `touched`: all that calls changed."""
    names = kept or counts
    if not names:
        return []
    some, others = _some(names), _some([name for name in touched if name not in names])
    if kept:
        return [
            f"the network keeps state between calls ({some}), and answers by it: the state is put back before every "
            "call, so that what is judged is a network that nobody has asked yet"
        ]
    more = f"; {others}, which calls write too, changes no answer" if others else ""
    return [f"the network counts its calls ({some}): this state is put back before every call{more}"]


def _some(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names[:5]) + (", ..." if len(names) > 5 else "")
