"""The nearest adversarial example of a small ReLU network, by linear programs in neighbouring linear regions."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import linprog
from scipy.sparse import csr_array, eye_array, hstack, vstack
from torch import Tensor, nn

from ...errors import Unsupported
from ...threat import ThreatModel, one_radius
from ..relaxation.graph import Graph, read_graph
from ..relaxation.operations import RELU, Activation, MaxPool
from .mixed_integer import affine_form

Images = Float[Tensor, "batch *dims"]

# The other class must win by this share of the largest logit, so that float32 agrees.
_CLEARLY = 1e-6
# Least relative gain for which the walk goes on.
_GAIN = 1e-6


def walk_regions(
    network: nn.Module,
    x: Images,
    y: Int[Tensor, " batch"],
    x_adv: Images,
    threat: ThreatModel,
    *,
    programs: int = 300,
) -> Images:
    """Draws adversarial examples nearer: the nearest one of their linear region, then of the regions around it.

    Inside the region of one pattern of active ReLUs the network is affine, and the nearest point that the class of
    `x_adv` wins is a linear program. The walk goes on to the first region with one ReLU switched that holds a nearer
    point, until there is none: first the ReLUs that bind at the solution, then all that can switch so near to `x`.
    Never farther than `x_adv`, which is returned where it is not adversarial or nothing nearer is found; a local
    search, so not always the nearest.

    **Arguments**
    - `network`: affine operations and ReLU only, sums of branches included.
    - `x_adv`: where the walks start, from another attack.
    - `threat`: Linf, untargeted. The whole box is searched.
    - `programs`: linear programs per example, at most.

    **Source**: Croce, Rauber & Hein 2019, arXiv:1903.11359 (the linear program in a region).
    **Differs**: it goes from region to region by single switches, not to the regions of random points.
    """
    threat = one_radius(threat, "the walk through linear regions")
    if threat.p != math.inf or threat.goal != "untargeted":
        raise Unsupported(f"the walk through linear regions is for linf, untargeted; this threat is {threat}")
    graph = read_graph(network, x)
    for node in graph.nodes[1:]:
        operation = node.operation
        if isinstance(operation, MaxPool) or (isinstance(operation, Activation) and operation is not RELU):
            raise Unsupported(
                "the walk through linear regions is for networks of affine operations and ReLU only"
            )
    pieces = Pieces(graph)
    found = x_adv.clone()
    with torch.no_grad():
        for i in range(len(x)):
            center, start = (v[i].double().flatten().cpu().numpy() for v in (x, x_adv))
            best = _walk(pieces, center, start, int(y[i]), threat.box, programs)
            point = torch.from_numpy(best).to(x).reshape(x[i].shape).clamp(*threat.box)
            nearer = threat.distance(point[None], x[i : i + 1]) < threat.distance(
                x_adv[i : i + 1], x[i : i + 1]
            )
            if nearer and int(network(point[None]).argmax()) != int(y[i]):
                found[i] = point
    return found


def _walk(
    pieces: Pieces, center: np.ndarray, start: np.ndarray, y: int, box: tuple[float, float], programs: int
) -> np.ndarray:
    target = int(pieces.logits(start).argmax())
    if target == y:
        return start
    pattern, best = pieces.pattern(start), start
    order: list[int] = [-1]  # the start's own region first
    while order and programs > 0:
        reach = np.abs(best - center).max() * (1 - _GAIN)
        neuron, *order = order
        other = pattern.copy()
        if neuron >= 0:
            other[neuron] = ~other[neuron]
        point, switching = pieces.nearest(other, center, y, target, box, reach)
        programs -= 1
        if point is not None:
            pattern, best = other, point
            rest = [n for n in pieces.nearby(pattern, center, best) if n not in switching]
            order = switching + rest
        elif neuron < 0:
            order = pieces.nearby(pattern, center, best)
    return best


class Pieces:
    """The affine pieces of a ReLU network; a pattern `[neurons]` says which ReLUs are active."""

    @torch.no_grad()
    def __init__(self, graph: Graph):
        self.relus: list[tuple[int, dict[int, np.ndarray], np.ndarray]] = []
        for here, node in enumerate(graph.nodes):
            if node.operation is RELU:
                parent = node.parents[0]
                shape = graph.nodes[parent].shape
                width = math.prod(shape)
                rows = torch.eye(width, dtype=torch.float64).reshape(width, *shape)
                self.relus.append((here, *affine_form(graph, parent, rows)))
        classes = graph.nodes[-1].shape[0]
        self.last = affine_form(graph, len(graph.nodes) - 1, torch.eye(classes, dtype=torch.float64))

    def _values(self, x: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        outputs, before = {0: x}, []
        for here, matrices, offset in self.relus:
            z = sum((m @ outputs[place] for place, m in matrices.items()), offset)
            outputs[here] = np.maximum(z, 0)
            before.append(z)
        return before, sum((m @ outputs[place] for place, m in self.last[0].items()), self.last[1])

    def pattern(self, x: np.ndarray) -> np.ndarray:
        """Which ReLUs are active at a point."""
        return np.concatenate([np.zeros(0, dtype=bool), *(z > 0 for z in self._values(x)[0])])

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The network itself."""
        return self._values(x)[1]

    def _piece(
        self, pattern: np.ndarray, width: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Pre-activations and logits as affine functions of the input where the pattern holds."""
        slopes: dict[int, np.ndarray] = {0: np.eye(width)}
        values: dict[int, np.ndarray] = {0: np.zeros(width)}
        rows, offsets, first = [np.zeros((0, width))], [np.zeros(0)], 0
        for here, matrices, offset in self.relus:
            slope = sum(m @ slopes[place] for place, m in matrices.items())
            value = sum((m @ values[place] for place, m in matrices.items()), offset)
            active = pattern[first : first + len(offset)]
            first += len(offset)
            rows.append(np.asarray(slope))
            offsets.append(value)
            slopes[here], values[here] = active[:, None] * slope, active * value
        slope = sum(m @ slopes[place] for place, m in self.last[0].items())
        value = sum((m @ values[place] for place, m in self.last[0].items()), self.last[1])
        return np.concatenate(rows), np.concatenate(offsets), np.asarray(slope), value

    def nearby(self, pattern: np.ndarray, center: np.ndarray, x: np.ndarray) -> list[int]:
        """The ReLUs whose sign may change as near to the center as `x` is, nearest to switching at `x` first."""
        slope, value, _, _ = self._piece(pattern, len(x))
        size = np.abs(slope).sum(1)
        reach = np.abs(x - center).max()
        can = np.abs(slope @ center + value) <= size * reach
        away = np.abs(slope @ x + value) / np.maximum(size, 1e-300)
        return [n for n in np.argsort(away).tolist() if can[n]]

    def nearest(
        self,
        pattern: np.ndarray,
        center: np.ndarray,
        y: int,
        target: int,
        box: tuple[float, float],
        reach: float,
    ) -> tuple[np.ndarray | None, list[int]]:
        """The nearest point of the region that the target wins, and the ReLUs that bind there, dearest first.

        None where there is none nearer than `reach`.
        """
        width = len(center)
        slope, value, out_slope, out_value = self._piece(pattern, width)
        sign = np.where(pattern, -1.0, 1.0)
        clearly = _CLEARLY * np.abs(self.logits(center)).max()
        rows = np.vstack([sign[:, None] * slope, out_slope[y] - out_slope[target]])
        most = np.append(-sign * value, out_value[target] - out_value[y] - clearly) - rows @ center
        one, wide = eye_array(width, format="csr"), csr_array(np.ones((width, 1)))
        region = hstack([csr_array(rows), csr_array((len(rows), 1))])
        ball = vstack([hstack([one, -wide]), hstack([-one, -wide])])
        bounds = np.column_stack([np.maximum(box[0] - center, -reach), np.minimum(box[1] - center, reach)])
        solved = linprog(
            np.append(np.zeros(width), 1.0),
            A_ub=vstack([region, ball], format="csr"),
            b_ub=np.append(most, np.zeros(2 * width)),
            bounds=np.vstack([bounds, [0.0, reach]]),
            method="highs",
        )
        if solved.x is None or solved.status != 0:
            return None, []
        price = -np.asarray(solved.ineqlin.marginals)[: len(pattern)]
        switching = np.flatnonzero(price > 1e-12)
        return center + solved.x[:width], switching[np.argsort(-price[switching])].tolist()

    def smallest(
        self, pattern: np.ndarray, y: int, target: int, low: np.ndarray, high: np.ndarray
    ) -> tuple[bool, np.ndarray | None, float]:
        """The smallest margin of y over the target in a box and the pattern's region.

        Whether there is no such point, the point, and its margin; neither (NaN) where the solver gave up.
        """
        slope, value, out_slope, out_value = self._piece(pattern, len(low))
        sign = np.where(pattern, -1.0, 1.0)
        solved = linprog(
            out_slope[y] - out_slope[target],
            A_ub=sign[:, None] * slope,
            b_ub=-sign * value,
            bounds=np.column_stack([low, high]),
            method="highs",
        )
        if solved.x is None or solved.status != 0:
            return solved.status == 2, None, math.nan
        return False, solved.x, float(solved.fun + out_value[y] - out_value[target])
