"""How a branch is bounded: CROWN with optimised slopes, and a multiplier for each sign that the branch fixes.

**Source**: Wang et al. 2021, arXiv:2103.06624 (beta-CROWN).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..relaxation.crown import Region, crown_bounds, lower_bounds
from ..relaxation.graph import Graph
from ..relaxation.operations import RELU, Interval
from ..relaxation.slopes import optimised_rows
from .branches import Branches

# Ascent steps on each branch, and the step sizes of slopes and multipliers. Ours: of 2, 3, 4 and 8 steps, 3 or 4 took
# the least time in all on two images of `mnist_fc_50x2`.
_STEPS = 4
_SLOPE_RATE, _WEIGHT_RATE = 0.2, 0.1


class BranchBounds:
    """Bounds of one example's margins in one region, branch by branch."""

    def __init__(self, graph: Graph, region: Region, y: int):
        self.graph, self.region, self.y = graph, region, y
        self.last = len(graph.nodes) - 1
        self.relus = [here for here, node in enumerate(graph.nodes) if node.operation is RELU]
        self.shapes = [graph.nodes[here].shape for here in self.relus]
        self.eye = torch.eye(graph.nodes[-1].shape[0], dtype=torch.float64)
        self.bounds = crown_bounds(graph, region)
        for here in self.relus:
            parent = graph.nodes[here].parents[0]
            self.bounds[parent] = self._tightened(self.bounds, parent)

    def roots(self) -> Branches:
        """One branch per other class, no sign fixed and nothing bounded yet."""
        targets = torch.tensor([k for k in range(len(self.eye)) if k != self.y])
        before = [self.bounds[self.graph.nodes[here].parents[0]] for here in self.relus]
        lower, upper = (
            torch.cat([getattr(b, side).flatten(1) for b in before], 1).expand(len(targets), -1)
            for side in ("lower", "upper")
        )
        nothing = torch.zeros_like(lower)
        slope = (upper >= -lower).to(lower.dtype)
        bound = lower.new_full((len(targets),), -math.inf)
        return Branches(bound, targets, lower, upper, nothing, slope, nothing)

    def of(
        self, now: Branches, slope: Tensor, weight: Tensor, arriving: dict[int, Tensor] | None = None
    ) -> Tensor:
        """Lower bound of each branch's margin `[branches]`. Sound for slopes in [0, 1] and weights >= 0.

        `arriving` receives the rows, as `lower_bounds` says.
        """
        bounds, slopes, multipliers = list(self.bounds), {}, {}
        sizes = [math.prod(shape) for shape in self.shapes]
        parts = (now.lower, now.upper, slope, -now.sign * weight)
        for here, shape, *part in zip(
            self.relus, self.shapes, *(p.split(sizes, 1) for p in parts), strict=True
        ):
            lower, upper, own, multiplier = (p.reshape(-1, *shape) for p in part)
            bounds[self.graph.nodes[here].parents[0]] = Interval(lower, upper)
            slopes[here], multipliers[here] = own[:, None], multiplier[:, None]
        rows = (self.eye[self.y] - self.eye[now.target])[:, None]
        found = lower_bounds(
            self.graph,
            self.region,
            bounds,
            self.last,
            rows,
            slopes=slopes,
            multipliers=multipliers,
            arriving=arriving,
        )
        return found[:, 0]

    def climbed(self, now: Branches) -> tuple[Branches, Tensor]:
        """The branches that stay open after ascent on slopes and multipliers.

        And for every branch its relaxation's slopes at the input, `[branches, *dims]`.
        """
        best, best_slope, best_weight = now.bound, now.slope, now.weight
        slope, weight = now.slope.clone(), now.weight.clone()
        with torch.enable_grad():
            slope.requires_grad_()
            weight.requires_grad_()
            optimiser = torch.optim.Adam(
                [{"params": [slope], "lr": _SLOPE_RATE}, {"params": [weight], "lr": _WEIGHT_RATE}],
                maximize=True,
            )
            for step in range(_STEPS + 1):
                arriving: dict[int, Tensor] = {}
                found = self.of(now, slope, weight, arriving)
                better = found.detach() > best
                best = torch.where(better, found.detach(), best)
                best_slope = torch.where(better[:, None], slope.detach(), best_slope)
                best_weight = torch.where(better[:, None], weight.detach(), best_weight)
                if step == _STEPS:
                    break
                optimiser.zero_grad()
                found.sum().backward(inputs=[slope, weight])
                optimiser.step()
                with torch.no_grad():
                    slope.clamp_(0, 1)
                    weight.clamp_(min=0)
        after = Branches(best, now.target, now.lower, now.upper, now.sign, best_slope, best_weight)
        return after[best <= 0], arriving[0].detach()[:, 0]

    def _tightened(self, bounds: list[Interval], place: int) -> Interval:
        lower, upper = bounds[place]
        open_ = ((lower < 0) & (upper > 0)).flatten().nonzero()[:, 0]
        if not len(open_):
            return bounds[place]
        rows = torch.nn.functional.one_hot(open_, lower.numel()).to(lower)
        rows = torch.cat([rows, -rows]).reshape(1, -1, *lower.shape[1:])
        least = optimised_rows(self.graph, self.region, bounds, place, rows)[0]
        lower, upper = lower.flatten().clone(), upper.flatten().clone()
        lower[open_] = torch.maximum(lower[open_], least[: len(open_)])
        upper[open_] = torch.minimum(upper[open_], -least[len(open_) :])
        return Interval(lower.reshape(bounds[place].lower.shape), upper.reshape(bounds[place].upper.shape))
