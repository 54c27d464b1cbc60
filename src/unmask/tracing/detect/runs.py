"""What every detector is given: the recorded runs, and what was learned from comparing them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..record.values import Trace
from ..suspect import Origin, Suspect


@dataclass(frozen=True, eq=False)
class Runs:
    """Recorded runs of one network on a few images.

    **Fields**
    - `base`: on the images; `moved`: on moved images, by the share of epsilon (`record.compare.SCALES`, `EXCHANGED`).
    - `y`: labels `[batch]`.
    - `controlled`: equal seeds give equal runs, so that differences mean something.
    - `lost`: the places that lose the gradient, which what else is seen may follow from.
    - `origins`: where randomness enters.
    """

    base: Trace
    moved: dict[float, Trace]
    y: Tensor
    controlled: bool = True
    lost: tuple[Suspect, ...] = ()
    origins: tuple[Origin, ...] = ()
