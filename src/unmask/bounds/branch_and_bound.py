"""Complete verification of small ReLU networks: whether an adversarial example lies within a radius, yes or no.

**Source**: Bunel et al. 2020, arXiv:1909.06588 (branch and bound over the signs of ReLUs); Wang et al. 2021,
arXiv:2103.06624 (beta-CROWN: a multiplier for each sign that a branch fixes); De Palma et al. 2021, arXiv:2104.06718
(filtered smart branching).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..errors import Unsupported
from ..threat import Linf, ThreatModel
from .branches import Branches
from .certified import region_of
from .graph import Graph, read_graph
from .linear_regions import Pieces
from .linear_relaxation import Region, crown_bounds, lower_bounds
from .operations import RELU, Activation, Interval, MaxPool
from .slopes import optimised_rows

Images = Float[Tensor, "batch *dims"]

# Branches bounded together, ascent steps on each, and its two step sizes; signs of how many ReLUs are tried before one
# is fixed. Ours.
_TOGETHER = 256
_STEPS = 4
_SLOPE_RATE, _WEIGHT_RATE = 0.2, 0.1
_TRIED = 4
# A linear program whose smallest margin is not above this decides nothing unless its point is an example.
_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class Proof:
    """What branch and bound found out about one example.

    **Fields**
    - `answer`: `safe` (proved: no allowed point gives another class the label's logit), `unsafe` (`x_adv` is one), or
      `open` (time ran out, or a linear program left the margin at zero to its tolerance).
    - `x_adv`: `[*dims]`, float64, or None.
    - `branches`: how many were bounded.
    - `seconds`: wall time.
    """

    answer: Literal["safe", "unsafe", "open"]
    x_adv: Tensor | None
    branches: int
    seconds: float


def verify(
    network: nn.Module,
    x: Images,
    y: Int[Tensor, " batch"],
    threat: ThreatModel,
    *,
    radius: Float[Tensor, " batch"] | None = None,
    time_limit: float = 60.0,
) -> list[Proof]:
    """Whether some allowed point gives another class the label's logit, by branch and bound over the ReLUs' signs.

    Each branch fixes the signs of some ReLUs. It is closed when CROWN, with optimised slopes and a multiplier for each
    fixed sign, proves the margin to be positive there; otherwise the ReLU whose two signs promise most is fixed next.
    Where every sign is fixed a linear program decides. In exact arithmetic, with the outward slack of `certify`.

    **Arguments**
    - `network`: affine operations and ReLU only, sums of branches included; up to a few hundred open ReLUs.
    - `threat`: Linf, untargeted. `radius` replaces its epsilon.
    - `time_limit`: seconds per example.
    """
    if not isinstance(threat, Linf) or threat.goal != "untargeted":
        raise Unsupported(f"branch and bound is for linf, untargeted; this threat is {threat}")
    graph = read_graph(network, x)
    for node in graph.nodes[1:]:
        if isinstance(node.operation, MaxPool) or (
            isinstance(node.operation, Activation) and node.operation is not RELU
        ):
            raise Unsupported("branch and bound is for networks of affine operations and ReLU only")
    if radius is None:
        radius = torch.full((len(x),), threat.epsilon, dtype=torch.float64)
    if not any(node.operation is RELU for node in graph.nodes):
        raise Unsupported("branch and bound has nothing to branch on: this network has no ReLU")
    pieces = Pieces(graph)
    with torch.no_grad():
        return [
            _Search(graph, pieces, region_of(x[i : i + 1], threat, radius[i : i + 1]), int(y[i])).run(
                time_limit
            )
            for i in range(len(x))
        ]


class _Search:
    """One example in one region."""

    def __init__(self, graph: Graph, pieces: Pieces, region: Region, y: int):
        self.graph, self.pieces, self.region, self.y = graph, pieces, region, y
        self.last = len(graph.nodes) - 1
        self.relus = [here for here, node in enumerate(graph.nodes) if node.operation is RELU]
        self.shapes = [graph.nodes[here].shape for here in self.relus]
        self.eye = torch.eye(graph.nodes[-1].shape[0], dtype=torch.float64)
        self.bounded = 0
        self.undecided = False
        self.x_adv: Tensor | None = None

    def run(self, time_limit: float) -> Proof:
        start = time.perf_counter()
        todo = [self._root()]
        while todo and self.x_adv is None:
            if time.perf_counter() - start > time_limit:
                return Proof("open", None, self.bounded, time.perf_counter() - start)
            now = self._deepest(todo)
            splittable = now.open().any(1)
            for leaf in (~splittable).nonzero()[:, 0].tolist():
                self._decide(now[torch.tensor([leaf])])
            now = now[splittable]
            if len(now.bound):
                todo.append(self._climbed(self._split(now)))
        answer = "unsafe" if self.x_adv is not None else "open" if self.undecided else "safe"
        return Proof(answer, self.x_adv, self.bounded, time.perf_counter() - start)

    def _deepest(self, todo: list[Branches]) -> Branches:
        """Takes the newest branches off the stack, so that few are open at a time; the worst of them first."""
        now = todo.pop()
        while todo and len(now.bound) < _TOGETHER:
            now = now + todo.pop()
        order = now.bound.argsort()
        if len(now.bound) > _TOGETHER:
            todo.append(now[order[_TOGETHER:]])
        return now[order[:_TOGETHER]]

    def _root(self) -> Branches:
        """One branch per other class, behind bounds whose slopes were optimised."""
        bounds = crown_bounds(self.graph, self.region)
        for here in self.relus:
            parent = self.graph.nodes[here].parents[0]
            bounds[parent] = self._tightened(bounds, parent)
        self.bounds = bounds
        targets = torch.tensor([k for k in range(len(self.eye)) if k != self.y])
        before = [bounds[self.graph.nodes[here].parents[0]] for here in self.relus]
        lower, upper = (
            torch.cat([getattr(b, side).flatten(1) for b in before], 1).expand(len(targets), -1)
            for side in ("lower", "upper")
        )
        nothing = torch.zeros_like(lower)
        slope = (upper >= -lower).to(lower.dtype)
        bound = lower.new_full((len(targets),), -math.inf)
        return self._climbed(Branches(bound, targets, lower, upper, nothing, slope, nothing))

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

    def _bound(
        self, now: Branches, slope: Tensor, weight: Tensor, arriving: dict[int, Tensor] | None
    ) -> Tensor:
        """Lower bound of each branch's margin `[branches]`. Sound for slopes in [0, 1] and weights >= 0."""
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

    def _climbed(self, now: Branches) -> Branches:
        """The branches that stay open after ascent on slopes and multipliers. Looks for an example on the way."""
        self.bounded += len(now.bound)
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
                found = self._bound(now, slope, weight, arriving)
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
        self._try(arriving[0].detach())
        after = Branches(best, now.target, now.lower, now.upper, now.sign, best_slope, best_weight)
        return after[best <= 0]

    def _try(self, rows: Tensor) -> None:
        """The corners at which the relaxations are smallest: one of them may be an example."""
        corner = torch.where(rows[:, 0] > 0, self.region.lower, self.region.upper)
        self._offer(corner)

    def _offer(self, points: Tensor) -> None:
        logits = self.graph(points)
        margin = logits[:, self.y] - logits.index_fill(1, torch.tensor([self.y]), -torch.inf).amax(1)
        if margin.min() <= 0:
            self.x_adv = points[margin.argmin()]

    def _split(self, now: Branches) -> Branches:
        """Two branches for each: of the ReLUs whose relaxation costs most, the one whose two signs bring most."""
        arriving: dict[int, Tensor] = {}
        self._bound(now, now.slope, now.weight, arriving)
        rows = torch.cat([arriving[here].flatten(1) for here in self.relus], 1)
        low, high = -now.lower, now.upper
        above = -rows.clamp_max(0) * low * high / (low + high).clamp_min(1e-300)
        below = rows.clamp_min(0) * torch.minimum(now.slope * low, (1 - now.slope) * high)
        cost = torch.where(now.open(), above + below, -1.0)
        tried = cost.topk(min(_TRIED, cost.shape[1]), 1).indices
        gain = torch.full_like(tried, -torch.inf, dtype=torch.float64)
        for place in range(tried.shape[1]):
            halves = [now.fixed(tried[:, place], sign) for sign in (1, -1)]
            found = [self._bound(half, half.slope, half.weight, None).clamp_max(0) for half in halves]
            allowed = now.open().gather(1, tried[:, place : place + 1])[:, 0]
            gain[:, place] = torch.where(allowed, found[0] + found[1], -torch.inf)
        chosen = tried.gather(1, gain.argmax(1, keepdim=True))[:, 0]
        return now.fixed(chosen, 1) + now.fixed(chosen, -1)

    def _decide(self, leaf: Branches) -> None:
        """A branch without open ReLUs is a linear program, solved to HiGHS's tolerance."""
        pattern = (leaf.lower[0] >= 0).numpy()
        low, high = self.region.lower.flatten().numpy(), self.region.upper.flatten().numpy()
        empty, point, margin = self.pieces.smallest(pattern, self.y, int(leaf.target), low, high)
        if empty:
            return
        if point is not None:
            self._offer(torch.from_numpy(point).reshape(self.region.lower.shape))
        self.undecided |= not margin > _TOLERANCE
