"""Several defences, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...classifier import Classifier
from ...errors import UnusableInput
from ..base import Defense


@dataclass(frozen=True)
class Composed(Defense):
    """Several defences: an image passes through the first one first.

    The surrogate goes straight through the transformations and leaves random defences of other kinds out, so that
    its values are the network's own only where there are none of those.

    **Fields**
    - `parts`: any defences, random ones among them; a prediction averages the passes of the first random one.
    """

    parts: Sequence[Defense]

    def __post_init__(self) -> None:
        if not self.parts:
            raise UnusableInput("`Composed` has no parts; give at least one defence")

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        for part in reversed(self.parts):
            classifier = part.wrap(classifier)
        return classifier
