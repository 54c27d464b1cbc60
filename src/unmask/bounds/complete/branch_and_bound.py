"""Complete verification of small ReLU networks: whether an adversarial example lies within a radius, yes or no.

**Source**: Bunel et al. 2020, arXiv:1909.06588 (branch and bound over the signs of ReLUs); Wang et al. 2021,
arXiv:2103.06624 (beta-CROWN: a multiplier for each sign that a branch fixes); De Palma et al. 2021, arXiv:2104.06718
(filtered smart branching).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import Unsupported
from ...threat import Linf, NormBall, ThreatModel
from ..certified import region_of
from ..relaxation.graph import Graph, read_graph
from ..relaxation.operations import RELU, Activation, MaxPool
from .branch_bounds import BranchBounds
from .branches import Branches
from .linear_regions import Pieces

Images = Float[Tensor, "batch *dims"]

# Branches bounded together, and signs of how many ReLUs are tried before one is fixed. Ours.
_TOGETHER = 256
_TRIED = 4
# A linear program whose smallest margin is not above this decides nothing unless its point is an example.
_TOLERANCE = 1e-6

# Given points `[points, *dims]` and each one's other class: a point that is an example, or None.
Offer = Callable[[Tensor, Tensor], Tensor | None]


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


def decide(
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
    graph = relu_graph(network, x)
    if radius is None:
        radius = torch.full((len(x),), threat.epsilon, dtype=torch.float64)
    pieces = Pieces(graph)
    with torch.no_grad():
        return [
            Search(graph, pieces, x[i : i + 1], int(y[i]), threat, float(radius[i])).run(time_limit)
            for i in range(len(x))
        ]


def relu_graph(network: nn.Module, x: Images) -> Graph:
    """The operations of a network whose ReLUs branch and bound can fix.

    **Raises** `Unsupported` where there is another non-linear operation, or none at all.
    """
    graph = read_graph(network, x)
    for node in graph.nodes[1:]:
        if isinstance(node.operation, MaxPool) or (
            isinstance(node.operation, Activation) and node.operation is not RELU
        ):
            raise Unsupported("branch and bound is for networks of affine operations and ReLU only")
    if not any(node.operation is RELU for node in graph.nodes):
        raise Unsupported("branch and bound has nothing to branch on: this network has no ReLU")
    return graph


class Search:
    """The search for an example around one image, branch by branch.

    **Arguments**
    - `x`: `[1, *dims]`; `y`: its label; `radius`: of the ball, in place of `threat.epsilon`.
    - `offer`: what is asked whether a point is an example; by default the network in float64.
    """

    def __init__(
        self,
        graph: Graph,
        pieces: Pieces,
        x: Images,
        y: int,
        threat: NormBall,
        radius: float,
        offer: Offer | None = None,
    ):
        self.graph, self.pieces, self.y, self.threat = graph, pieces, y, threat
        self.x, self.radius = x.double(), torch.tensor([radius], dtype=torch.float64)
        self.region = region_of(x, threat, self.radius)
        self.bounds = BranchBounds(graph, self.region, y)
        self.offer = offer or self._wins
        self.bounded = 0
        self.undecided = False
        self.x_adv: Tensor | None = None

    def run(self, time_limit: float = math.inf, most: float = math.inf) -> Proof:
        """Searches until there is an answer, `time_limit` seconds are over, or `most` branches have been bounded."""
        start = time.perf_counter()
        todo = [self._still_open(self.bounds.roots())]
        while todo and self.x_adv is None:
            if time.perf_counter() - start > time_limit or self.bounded >= most:
                return Proof("open", None, self.bounded, time.perf_counter() - start)
            now = self._deepest(todo)
            splittable = now.open().any(1)
            for leaf in (~splittable).nonzero()[:, 0].tolist():
                self._decide(now[torch.tensor([leaf])])
            now = now[splittable]
            if len(now.bound):
                todo.append(self._still_open(self._split(now)))
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

    def _still_open(self, now: Branches) -> Branches:
        """Those of the branches that their bounds do not close; where their relaxations are least may be an example."""
        self.bounded += len(now.bound)
        after, rows = self.bounds.climbed(now)
        centers = self.x.expand(len(rows), *self.x.shape[1:])
        lowest = self.threat.ascend(centers, -rows, self.radius.expand(len(rows)))
        self.x_adv = self.offer(lowest, now.target)
        return after

    def _wins(self, points: Tensor, targets: Tensor) -> Tensor | None:
        logits = self.graph(points)
        margin = logits[:, self.y] - logits.index_fill(1, torch.tensor([self.y]), -torch.inf).amax(1)
        return points[margin.argmin()] if margin.min() <= 0 else None

    def _split(self, now: Branches) -> Branches:
        """Two branches for each: of the ReLUs whose relaxation costs most, the one whose two signs bring most."""
        arriving: dict[int, Tensor] = {}
        self.bounds.of(now, now.slope, now.weight, arriving)
        rows = torch.cat([arriving[here].flatten(1) for here in self.bounds.relus], 1)
        low, high = -now.lower, now.upper
        above = -rows.clamp_max(0) * low * high / (low + high).clamp_min(1e-300)
        below = rows.clamp_min(0) * torch.minimum(now.slope * low, (1 - now.slope) * high)
        cost = torch.where(now.open(), above + below, -1.0)
        tried = cost.topk(min(_TRIED, cost.shape[1]), 1).indices
        gain = torch.full_like(tried, -torch.inf, dtype=torch.float64)
        for place in range(tried.shape[1]):
            halves = [now.fixed(tried[:, place], sign) for sign in (1, -1)]
            found = [self.bounds.of(half, half.slope, half.weight).clamp_max(0) for half in halves]
            allowed = now.open().gather(1, tried[:, place : place + 1])[:, 0]
            gain[:, place] = torch.where(allowed, found[0] + found[1], -torch.inf)
        chosen = tried.gather(1, gain.argmax(1, keepdim=True))[:, 0]
        return now.fixed(chosen, 1) + now.fixed(chosen, -1)

    def _decide(self, leaf: Branches) -> None:
        """A branch without open ReLUs is a linear program over the ball's box, solved to HiGHS's tolerance."""
        pattern = (leaf.lower[0] >= 0).numpy()
        low, high = self.region.lower.flatten().numpy(), self.region.upper.flatten().numpy()
        empty, point, margin = self.pieces.smallest(pattern, self.y, int(leaf.target), low, high)
        if empty:
            return
        if point is not None:
            found = self.offer(torch.from_numpy(point).reshape(self.region.lower.shape), leaf.target)
            self.x_adv = found if self.x_adv is None else self.x_adv
        self.undecided |= not margin > _TOLERANCE
