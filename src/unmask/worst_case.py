"""The worst point found so far for every example: one type for attacks, audit, bounds and reproductions."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class WorstCase:
    """Per example the worst point that anybody has offered, and how bad it is.

    What `value` means is the caller's: an objective, a failure rate, or a distance with its sign turned. Greater is
    worse for the network. Nothing offered is ever lost to something less bad, whoever offers it and in which order.

    **Fields**
    - `x_adv`: `[batch, …]`, `x` until something is offered.
    - `value`: `[batch]`, float64, -inf until then.
    - `margin_loss`: `[batch]`, how near the point is to the goal: tells which of two points of equal value is kept.
    """

    def __init__(self, x: Float[Tensor, "batch *dims"]):
        self.x_adv = x.clone()
        self.value = torch.full((len(x),), -torch.inf, device=x.device, dtype=torch.float64)
        self.margin_loss = torch.full((len(x),), -torch.inf, device=x.device)

    def offer(
        self,
        part: Int[Tensor, " part"],
        x_adv: Float[Tensor, "part *dims"],
        value: Float[Tensor, " part"],
        margin_loss: Float[Tensor, " part"] | None = None,
    ) -> Bool[Tensor, " part"]:
        """Takes for the examples at `part` the points that are worse than those that stand; says which it took.

        Equal value with a greater margin loss is worse. NaN never is: a defect of the network is no progress of an
        attack.
        """
        better = value > self.value[part]
        if margin_loss is not None:
            better = better | ((value == self.value[part]) & (margin_loss > self.margin_loss[part]))
        rows = better.nonzero()[:, 0]
        self.x_adv[part[rows]] = x_adv[rows]
        self.value[part[rows]] = value[rows].to(self.value.dtype)
        if margin_loss is not None:
            self.margin_loss[part[rows]] = margin_loss[rows].to(self.margin_loss.dtype)
        return better
