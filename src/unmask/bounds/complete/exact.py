"""The exact distance to the nearest adversarial example of a small ReLU network, by mixed-integer programming.

**Source**: Tjeng et al. 2019, arXiv:1711.07356; the solver is HiGHS through `scipy.optimize.milp`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import Unsupported
from ...threat import NormBall, ThreatModel, one_radius
from ..certified import region_of
from ..relaxation.crown import crown_bounds, lower_bounds
from ..relaxation.graph import Graph, read_graph
from ..relaxation.operations import RELU, Activation, Interval, MaxPool
from .mixed_integer import Program

Images = Float[Tensor, "batch *dims"]


@dataclass(frozen=True, eq=False)
class ExactRadius:
    """One example's distance to the nearest point where another class reaches the label's logit.

    **Fields**
    - `radius`: distance of `x_adv`, an upper bound; +inf where none was found within the search radius.
    - `lower_bound`: proved: no such point is nearer. Within the tolerance of `radius` unless time ran out.
    - `gap`: `(radius - lower_bound) / radius`; 0 where it is proved that nothing lies within the search radius.
    - `x_adv`: the point, `[*dims]` float64, on the decision boundary; None where `radius` is infinite.
    - `violation`: logit of the label minus the target's at `x_adv`, in float64; the solver allows about 1e-6.
    - `target`: the class reached, -1 for none.
    - `seconds`: wall time.
    """

    radius: float
    lower_bound: float
    gap: float
    x_adv: Tensor | None
    violation: float
    target: int
    seconds: float


def exact_radius(
    network: nn.Module,
    x: Images,
    y: Int[Tensor, " batch"],
    threat: ThreatModel,
    *,
    upper: Float[Tensor, " batch"] | None = None,
    tolerance: float = 1e-3,
    time_limit: float = 60.0,
) -> list[ExactRadius]:
    """The nearest point of the box, up to `threat.epsilon`, where some other logit is at least the label's.

    **Arguments**
    - `network`: affine operations and ReLU only, sums of branches included; up to about a hundred open ReLUs.
    - `threat`: Linf or L1, untargeted; its epsilon is the search radius.
    - `upper`: distances at which adversarial examples are known `[batch]`; nothing farther is searched. The nearer,
      the faster: ReLUs whose sign is settled within this radius need no binary variable.
    - `tolerance`: relative difference of the two bounds at which the search ends.
    - `time_limit`: seconds per example.

    For each class that CROWN cannot exclude: the smallest margin within a radius, by one program; if it is negative,
    the segment from `x` to that point crosses the boundary nearer, and the search goes on inside; if there is none,
    the radius is proved. **Differs** from the paper: the distance is not a variable of the program, because its two
    constraints per pixel make each relaxation much larger.
    """
    threat = one_radius(threat, "the exact radius")
    if threat.p not in (1.0, math.inf) or threat.goal != "untargeted":
        raise Unsupported(f"the exact radius is for linf and l1, untargeted; this threat is {threat}")
    graph = read_graph(network, x)
    for node in graph.nodes[1:]:
        if isinstance(node.operation, MaxPool) or (
            isinstance(node.operation, Activation) and node.operation is not RELU
        ):
            raise Unsupported("the exact radius is for networks of affine operations and ReLU only")
    with torch.no_grad():
        reach = [
            threat.epsilon if upper is None else min(threat.epsilon, float(u))
            for u in (x if upper is None else upper)
        ]
        return [
            _Search(graph, x[i : i + 1].double(), int(y[i]), threat, tolerance, time_limit).run(reach[i])
            for i in range(len(x))
        ]


class _Search:
    """One example's search; `best` is the nearest boundary point so far."""

    def __init__(
        self, graph: Graph, x: Tensor, y: int, threat: NormBall, tolerance: float, time_limit: float
    ):
        self.graph, self.x, self.y, self.threat, self.tolerance = graph, x, y, threat, tolerance
        self.start = time.perf_counter()
        self.end = self.start + time_limit
        self.best = ExactRadius(math.inf, 0.0, 0.0, None, math.nan, -1, 0.0)

    def run(self, reach: float) -> ExactRadius:
        logits = self.graph(self.x)[0]
        wrong = int(logits.argmax())
        if wrong != self.y:
            return replace(
                self.best, radius=0.0, x_adv=self.x[0], violation=self._margin(self.x, wrong), target=wrong
            )
        # The known example itself must stay inside, so that "nothing found" never contradicts it.
        within, proved = reach * (1 + 1e-6), math.inf
        margins = _relaxed(self.graph, self.x, self.y, self.threat, within)[1]
        for target in margins.argsort().tolist():
            if target != self.y:
                within, bound = self._towards(target, within)
                proved = min(proved, bound)
        proved = min(proved, self.best.radius, reach)
        if self.best.x_adv is None:
            gap = 0.0 if proved >= reach else 1.0
        else:
            gap = (self.best.radius - proved) / self.best.radius
        return replace(self.best, lower_bound=proved, gap=gap, seconds=time.perf_counter() - self.start)

    def _towards(self, target: int, within: float) -> tuple[float, float]:
        """Looks for the target inside `within`; returns the radius still to be searched by others, and the proof."""
        while True:
            bounds, margins = _relaxed(self.graph, self.x, self.y, self.threat, within)
            if margins[target] > 0:
                return within, within
            program = Program(self.graph, self.x[0], bounds, self.threat, within)
            row = torch.zeros_like(margins)
            row[self.y], row[target] = 1.0, -1.0
            finished, point = program.smallest(row, max(self.end - time.perf_counter(), 1.0))
            if point is None:
                return within, within if finished else 0.0
            self._keep(point.reshape(self.x.shape), target)
            within = self.best.radius * (1 - self.tolerance)

    def _keep(self, point: Tensor, target: int) -> None:
        """The nearest point of the segment to `point` at which the target has reached the label."""
        near, far = 0.0, 1.0
        for _ in range(60):
            middle = (near + far) / 2
            reached = self._margin(self.x + middle * (point - self.x), target) <= 0
            near, far = (near, middle) if reached else (middle, far)
        found = self.x + far * (point - self.x)
        radius = float(self.threat.distance(found, self.x))
        if radius < self.best.radius:
            violation = self._margin(found, target)
            self.best = replace(self.best, radius=radius, x_adv=found[0], violation=violation, target=target)

    def _margin(self, point: Tensor, target: int) -> float:
        logits = self.graph(point)[0]
        return float(logits[self.y] - logits[target])


def _relaxed(
    graph: Graph, x: Tensor, y: int, threat: NormBall, within: float
) -> tuple[list[Interval], Tensor]:
    """CROWN's bounds of every node within a radius, and of the label's margins `[classes]`."""
    region = region_of(x, threat, torch.full((1,), within, dtype=torch.float64, device=x.device))
    bounds = crown_bounds(graph, region)
    eye = torch.eye(graph.nodes[-1].shape[0], dtype=torch.float64, device=x.device)
    return bounds, lower_bounds(graph, region, bounds, len(graph.nodes) - 1, (eye[y] - eye)[None])[0]
