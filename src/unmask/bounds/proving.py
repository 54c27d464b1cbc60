"""How many of some images can be proved, within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from .regional import Method

Places = Int[Tensor, " some"]

# Linear relaxations of more hidden elements than this take minutes an example. Ours.
RELAXABLE = 20_000
# Numbers that the rows of all classes may have at once on their way back through the last layers: 128 MB. Ours.
ROWS = 2**24
# Examples that are relaxed at once; if none of the first so many is proved, no more are tried. Ours.
PILOT = 8


@dataclass(frozen=True)
class Proved:
    """What was proved of some images.

    **Fields**
    - `proved` of `images`.
    - `left`: how many intervals left open; `tried`: how many of these were relaxed linearly.
    - `cut`: whether the budget, and not a hopeless pilot, kept it from trying the others.
    """

    proved: int
    images: int
    left: int
    tried: int
    cut: bool

    def __str__(self) -> str:
        """Which bounds, and of how many images.

        >>> print(Proved(3, 40, 37, 0, cut=True))
        interval bounds of the network (proved for 3 of the 40 open images)
        >>> print(Proved(12, 40, 37, 20, cut=True))
        interval and linear bounds of the network (proved for 12 of the 40 open images; linear ones tried on 20 of 37)
        """
        which = "interval and linear" if self.tried else "interval"
        some = f"; linear ones tried on {self.tried} of {self.left}" if 0 < self.tried < self.left else ""
        return (
            f"{which} bounds of the network (proved for {self.proved} of the {self.images} open images{some})"
        )


def prove(
    certified: Callable[[Places, Method], Bool[Tensor, " some"]],
    places: Places,
    *,
    hidden: int,
    classes: int,
    budget: int,
) -> Proved:
    """Tries intervals on every image, linear relaxations on as many of what they leave as the budget buys.

    So many images at once as keep the memory near that of one pass, and a pilot first: undefended networks are not
    worth the wait.

    **Arguments**
    - `certified`: of images at these places, which ones this method proves.
    - `places`: of the images, at least one.
    - `hidden`, `classes`: as `relaxation.size.measured`.
    - `budget`: hidden elements times examples.
    """
    parts = places.split(max(1, ROWS // max(1, classes * hidden)))
    proved = torch.cat([certified(part, "interval") for part in parts])
    count, left = int(proved.sum()), places[~proved]
    bought = budget // max(1, hidden) if hidden <= RELAXABLE else 0
    tried, hopeless = 0, False
    for part in left[:bought].split(PILOT):
        if not len(part):  # nothing is bought, or nothing is open
            break
        more = certified(part, "crown")
        count, tried = count + int(more.sum()), tried + len(part)
        hopeless = tried <= PILOT and not more.any()
        if hopeless:
            break
    return Proved(count, len(places), len(left), tried, cut=tried < len(left) and not hopeless)
