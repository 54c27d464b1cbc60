"""The exact distance to the nearest adversarial example of a small ReLU network, by mixed-integer programming.

**Source**: Tjeng et al. 2019, arXiv:1711.07356; the solver is HiGHS through `scipy.optimize.milp`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import bmat, coo_array, csr_array, eye_array
from torch import Tensor, nn

from ..errors import Unsupported
from ..threat import ThreatModel
from .certified import region_of
from .graph import Graph, read_graph
from .linear_relaxation import crown_bounds, lower_bounds
from .operations import RELU, Activation, Interval, MaxPool

Images = Float[Tensor, "batch *dims"]


@dataclass(frozen=True, eq=False)
class ExactRadius:
    """One example's distance to the nearest point where another class reaches the label's logit.

    **Fields**
    - `radius`: distance of `x_adv`, an upper bound; +inf where there is none within the search radius.
    - `lower_bound`: no such point is nearer. Equals `radius` up to the solver's tolerance unless time ran out.
    - `gap`: `(radius - lower_bound) / radius`; 0 where it is proved that nothing lies within the search radius.
    - `x_adv`: the point, `[*dims]` float64, on the decision boundary; None where `radius` is infinite.
    - `violation`: logit of the label minus the target's at `x_adv`, in float64; the solver allows about 1e-5.
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
    time_limit: float = 60.0,
) -> list[ExactRadius]:
    """The nearest point of the box, up to `threat.epsilon`, where some other logit is at least the label's.

    **Arguments**
    - `network`: affine operations and ReLU only, sums of branches included; up to a few hundred open ReLUs.
    - `threat`: Linf or L1, untargeted; its epsilon is the search radius.
    - `upper`: distances of known adversarial examples `[batch]`. The nearer, the faster: ReLUs whose sign is settled
      within this radius need no binary variable.
    - `time_limit`: seconds per example.

    One program per class that CROWN cannot exclude, nearest first, each within the best distance so far.
    """
    if threat.p not in (1.0, math.inf) or threat.goal != "untargeted":
        raise Unsupported(f"the exact radius is for linf and l1, untargeted; this threat is {threat}")
    graph = read_graph(network, x)
    for node in graph.nodes[1:]:
        if isinstance(node.operation, MaxPool) or (isinstance(node.operation, Activation) and node.operation is not RELU):
            raise Unsupported("the exact radius is for networks of affine operations and ReLU only")
    with torch.no_grad():
        return [
            _of_example(graph, x[i : i + 1], int(y[i]), threat, None if upper is None else float(upper[i]), time_limit)
            for i in range(len(x))
        ]


def _of_example(
    graph: Graph, x: Tensor, y: int, threat: ThreatModel, upper: float | None, time_limit: float
) -> ExactRadius:
    start = time.perf_counter()
    logits = graph(x)[0]
    classes = len(logits)
    wrong = int(logits.argmax())
    if wrong != y:
        margin = float(logits[y] - logits[wrong])
        return ExactRadius(0.0, 0.0, 0.0, x[0].double(), margin, wrong, time.perf_counter() - start)
    # A known example must stay feasible despite rounding, hence the hair's breadth.
    reach = threat.epsilon if upper is None else min(threat.epsilon, upper * (1 + 1e-6) + 1e-9)
    rows = torch.eye(classes, dtype=torch.float64, device=x.device)
    rows = (rows[y] - rows)[None]
    best, best_x, best_target, proved = math.inf, None, -1, reach
    bounds, margins = _relaxed(graph, x, threat, reach, rows)
    order = margins[0].argsort()
    for target in order.tolist():
        if target == y or margins[0, target] > 0:
            continue
        left = time_limit - (time.perf_counter() - start)
        program = _Program(graph, x[0].double(), bounds, threat, min(reach, best))
        distance, bound, point = program.solve(rows[0, target], max(left, 1.0))
        proved = min(proved, bound)
        if point is not None and distance < best:
            best, best_x, best_target = distance, point, target
            bounds, margins = _relaxed(graph, x, threat, best, rows)
    seconds = time.perf_counter() - start
    if best_x is None:
        return ExactRadius(math.inf, proved, 0.0 if proved >= reach else 1.0, None, math.nan, -1, seconds)
    best_x = best_x.reshape(x[0].shape)
    at = graph(best_x[None])[0]
    proved = min(proved, best)
    violation = float(at[y] - at[best_target])
    return ExactRadius(best, proved, (best - proved) / best if best else 0.0, best_x, violation, best_target, seconds)


def _relaxed(
    graph: Graph, x: Tensor, threat: ThreatModel, reach: float, rows: Tensor
) -> tuple[list[Interval], Tensor]:
    region = region_of(x, threat, torch.full((1,), reach, dtype=torch.float64, device=x.device))
    bounds = crown_bounds(graph, region)
    return bounds, lower_bounds(graph, region, bounds, len(graph.nodes) - 1, rows)


def _affine_form(graph: Graph, place: int, rows: Tensor) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """`rows` `[specs, *shape]` of a node, as matrices on the ReLUs and the input before it, and an offset `[specs]`."""
    waiting = {place: rows[None]}
    matrices: dict[int, np.ndarray] = {}
    total = rows.new_zeros(1, len(rows))
    for here in range(place, -1, -1):
        if here not in waiting:
            continue
        now = waiting.pop(here)
        operation, parents, _ = graph.nodes[here]
        if operation is None or operation is RELU:
            matrices[here] = now[0].flatten(1).cpu().numpy()
            continue
        back, offset = operation.pull(now, [], None)
        total = total + offset
        for parent, more in zip(parents, back, strict=True):
            waiting[parent] = waiting[parent] + more if parent in waiting else more
    return matrices, total[0].cpu().numpy()


class _Program:
    """The network as linear constraints. Variables are numbered in the order in which `_new` hands them out."""

    def __init__(self, graph: Graph, x: Tensor, bounds: list[Interval], threat: ThreatModel, reach: float):
        self.graph = graph
        self.lower: list[np.ndarray] = []
        self.upper: list[np.ndarray] = []
        self.integral: list[np.ndarray] = []
        self.count = 0
        self.rows: list[tuple[list[tuple[np.ndarray, csr_array]], np.ndarray, np.ndarray]] = []
        self.outputs: dict[int, np.ndarray] = {}

        center = x.flatten().cpu().numpy()
        self.inputs = self._new(*(b[0].flatten().cpu().numpy() for b in bounds[0]))
        self.outputs[0] = self.inputs
        one = eye_array(len(center), format="csr")
        if threat.p == math.inf:
            self.distance = self._new(np.zeros(1), np.full(1, reach))
            size = (self.distance, csr_array(np.ones((len(center), 1))))
        else:
            self.distance = self._new(np.zeros(len(center)), np.full(len(center), reach))
            size = (self.distance, one)
            self._constrain([(self.distance, csr_array(np.ones((1, len(center)))))], -np.inf, reach)
        self._constrain([(self.inputs, one), (size[0], -size[1])], -np.inf, center)
        self._constrain([(self.inputs, one), size], center, np.inf)
        for here, node in enumerate(graph.nodes):
            if node.operation is RELU:
                self._relu(here, bounds[node.parents[0]])

    def _new(self, lower: np.ndarray, upper: np.ndarray, integral: bool = False) -> np.ndarray:
        self.lower.append(lower)
        self.upper.append(upper)
        self.integral.append(np.full(len(lower), int(integral)))
        self.count += len(lower)
        return np.arange(self.count - len(lower), self.count)

    def _constrain(self, terms: list[tuple[np.ndarray, csr_array]], least, most) -> None:  # noqa: ANN001
        length = terms[0][1].shape[0]
        self.rows.append((terms, np.broadcast_to(least, length), np.broadcast_to(most, length)))

    def _relu(self, here: int, before: Interval) -> None:
        """`a = z + s` with a, s >= 0, of which one is zero: `a <= u d`, `s <= -l (1 - d)` for a binary d."""
        low, high = (b[0].flatten().cpu().numpy() for b in before)
        parent = self.graph.nodes[here].parents[0]
        shape = self.graph.nodes[parent].shape
        width = len(low)
        matrices, offset = _affine_form(
            self.graph, parent, torch.eye(width, dtype=torch.float64).reshape(width, *shape)
        )
        active = self._new(np.zeros(width), np.maximum(high, 0))
        slack = self._new(np.zeros(width), np.maximum(-low, 0))
        self.outputs[here] = active
        one = eye_array(width, format="csr")
        terms = [(self.outputs[p], csr_array(-m)) for p, m in matrices.items()]
        self._constrain([(active, one), (slack, -one), *terms], offset, offset)
        open_sign = np.flatnonzero((low < 0) & (high > 0))
        if len(open_sign):
            binary = self._new(np.zeros(len(open_sign)), np.ones(len(open_sign)), integral=True)
            some = eye_array(len(open_sign), format="csr")
            big, small = high[open_sign], low[open_sign]
            self._constrain([(active[open_sign], some), (binary, _diagonal(-big))], -np.inf, 0.0)
            self._constrain([(slack[open_sign], some), (binary, _diagonal(-small))], -np.inf, -small)

    def solve(self, row: Tensor, time_limit: float) -> tuple[float, float, Tensor | None]:
        """Distance, proved lower bound and point of the nearest input with `row . logits <= 0`.

        An infeasible program proves that there is none within reach: then the bound is +inf.
        """
        matrices, offset = _affine_form(self.graph, len(self.graph.nodes) - 1, row[None])
        terms = [(self.outputs[p], csr_array(m)) for p, m in matrices.items()]
        rows = [*self.rows, (terms, np.full(1, -np.inf), -offset)]
        blocks = [_placed(terms, self.count) for terms, _, _ in rows]
        least = np.concatenate([low for _, low, _ in rows])
        most = np.concatenate([high for _, _, high in rows])
        cost = np.zeros(self.count)
        cost[self.distance] = 1.0
        found = milp(
            cost,
            integrality=np.concatenate(self.integral),
            bounds=Bounds(np.concatenate(self.lower), np.concatenate(self.upper)),
            constraints=LinearConstraint(bmat([[b] for b in blocks], format="csr"), least, most),
            options={"time_limit": time_limit, "mip_rel_gap": 1e-6},
        )
        if found.status == 2:  # infeasible
            return math.inf, math.inf, None
        bound = found.mip_dual_bound
        bound = 0.0 if bound is None or not math.isfinite(bound) else max(float(bound), 0.0)
        if found.x is None:
            return math.inf, bound, None
        return float(found.fun), bound, torch.from_numpy(found.x[self.inputs])


def _diagonal(values: np.ndarray) -> csr_array:
    return csr_array(np.diag(values))


def _placed(terms: list[tuple[np.ndarray, csr_array]], columns: int) -> csr_array:
    """The sum of the terms as one sparse matrix on all variables."""
    parts = [(columns_of, matrix.tocoo()) for columns_of, matrix in terms]
    data = np.concatenate([m.data for _, m in parts])
    row = np.concatenate([m.row for _, m in parts])
    column = np.concatenate([c[m.col] for c, m in parts])
    return coo_array((data, (row, column)), shape=(terms[0][1].shape[0], columns)).tocsr()
