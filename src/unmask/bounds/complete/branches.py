"""The open branches of a search over the signs of a network's ReLUs, as one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Branches:
    """Open branches; the network's ReLUs are numbered through.

    **Fields**
    - `bound`: `[branches]`, proved lower bound of the margin; `target`: `[branches]`, the other class.
    - `lower`, `upper`: `[branches, relus]`, bounds before each ReLU, cut at zero where its sign is fixed.
    - `sign`: `[branches, relus]`, the fixed sign, 0 where it is free.
    - `slope`, `weight`: `[branches, relus]`, of each ReLU's lower line, and the multiplier of its fixed sign.
    """

    bound: Tensor
    target: Tensor
    lower: Tensor
    upper: Tensor
    sign: Tensor
    slope: Tensor
    weight: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> Branches:
        """The same change of every field."""
        return Branches(*(change(getattr(self, f.name)) for f in fields(self)))

    def __getitem__(self, index: Tensor) -> Branches:
        return self.each(lambda t: t[index])

    def __add__(self, other: Branches) -> Branches:
        return Branches(*(torch.cat([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))

    def open(self) -> Tensor:
        """`[branches, relus]`, True where the sign is undecided."""
        return (self.lower < 0) & (self.upper > 0)

    def fixed(self, relu: Tensor, sign: int) -> Branches:
        """One more sign fixed in each branch."""
        here = torch.nn.functional.one_hot(relu, self.lower.shape[1]).bool()
        lower = self.lower.masked_fill(here, 0) if sign > 0 else self.lower
        upper = self.upper.masked_fill(here, 0) if sign < 0 else self.upper
        changed = self.sign.masked_fill(here, sign)
        return Branches(self.bound, self.target, lower, upper, changed, self.slope, self.weight)
