"""Bounds of every operation of a network over a region of inputs: intervals, and CROWN's backward lines.

**Source**: Gowal et al. 2018, arXiv:1810.12715 (intervals); Zhang et al. 2018, arXiv:1811.00866 (CROWN); Xu et al.
2021, arXiv:2011.13824 (optimised slopes, alpha-CROWN).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .graph import Graph
from .operations import RELU, Activation, Affine, Interval, MaxPool

# Rows times elements of the widest layer that one backward pass may hold: 256 MB of float64.
_CHUNK = 2**25
# Outward slack of a backward pass, relative to the absolute sum that it concretises. Ours: a margin of safety for
# float64 rounding, not a proof.
_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Region:
    """A box of inputs, and optionally a ball that it is cut with.

    **Fields**
    - `lower`, `upper`: the box, `[batch, *dims]`, float64.
    - `center`, `radius`, `dual_p`: the ball, `[batch, *dims]`, `[batch]` and the dual of its norm; None for a box.
    """

    lower: Tensor
    upper: Tensor
    center: Tensor | None = None
    radius: Tensor | None = None
    dual_p: float = 1.0

    def minimum(self, rows: Float[Tensor, "batch specs *dims"]) -> Float[Tensor, "batch specs"]:
        """Lower bound of each linear function over the region: the larger of the box's and the ball's minimum."""
        rows = rows.flatten(2)
        lower, upper = self.lower.flatten(1), self.upper.flatten(1)
        middle, half = (lower + upper) / 2, (upper - lower) / 2
        sizes = rows.abs() @ _columns(half, torch.maximum(lower.abs(), upper.abs()))
        least, size = (rows @ _columns(middle))[:, :, 0] - sizes[:, :, 0], sizes[:, :, 1]
        if self.center is not None and self.radius is not None:
            inner = (rows @ _columns(self.center.flatten(1)))[:, :, 0]
            steepest = torch.linalg.vector_norm(rows, self.dual_p, dim=2)
            least = torch.maximum(least, inner - self.radius[:, None] * steepest)
        return least - _SLACK * size

    def __getitem__(self, index: Tensor) -> Region:
        center = None if self.center is None else self.center[index]
        radius = None if self.radius is None else self.radius[index]
        return Region(self.lower[index], self.upper[index], center, radius, self.dual_p)


def _columns(*vectors: Float[Tensor, "batch elements"]) -> Tensor:
    """`[batch, elements, vectors]`; one region for many rows is one matrix, which multiplies faster than a batch."""
    columns = torch.stack(vectors, 2)
    return columns[0] if len(columns) == 1 else columns


def interval_bounds(graph: Graph, region: Region) -> list[Interval]:
    """Bounds of every node by interval arithmetic. Costs about two forward passes."""
    bounds = [Interval(region.lower, region.upper)]
    for node in graph.nodes[1:]:
        assert node.operation is not None
        bounds.append(node.operation.interval(*(bounds[p] for p in node.parents)))
    return bounds


def lower_bounds(
    graph: Graph,
    region: Region,
    bounds: list[Interval],
    place: int,
    rows: Float[Tensor, "batch specs *shape"],
    *,
    only_affine: bool = False,
    slopes: dict[int, Tensor] | None = None,
    multipliers: dict[int, Tensor] | None = None,
    arriving: dict[int, Tensor] | None = None,
) -> Float[Tensor, "batch specs"]:
    """Lower bounds of linear functions `rows` of the output of node `place`.

    The rows are pulled back operation by operation to the input and minimised there. With `only_affine` they stop at
    the first non-linear operation and are minimised over its interval: interval arithmetic with the last layers
    merged. `slopes` maps a ReLU's position to the slopes of its lower lines, `multipliers` to what is added to the rows
    before it (`[batch, specs or 1, *in]`): a Lagrangian's terms, for a region on which they are nowhere positive.
    `arriving` receives the rows at the input and at each non-linear operation's output.
    """
    waiting = {place: rows}
    total = rows.new_zeros(rows.shape[:2])
    size = rows.new_zeros(rows.shape[:2])
    for here in range(place, 0, -1):
        if here not in waiting:
            continue
        coefficients = waiting.pop(here)
        operation, parents, _ = graph.nodes[here]
        assert operation is not None
        if arriving is not None and isinstance(operation, Activation | MaxPool):
            arriving[here] = coefficients
        if only_affine and isinstance(operation, Activation | MaxPool):
            total = total + Region(*bounds[here]).minimum(coefficients)
            continue
        slope = None if slopes is None else slopes.get(here)
        back, offset = operation.pull(coefficients, [bounds[p] for p in parents], slope)
        total, size = total + offset, size + offset.abs()
        if multipliers is not None and here in multipliers:
            back = [back[0] + multipliers[here]]
        for parent, more in zip(parents, back, strict=True):
            waiting[parent] = waiting[parent] + more if parent in waiting else more
    if 0 in waiting:
        total = total + region.minimum(waiting[0])
        if arriving is not None:
            arriving[0] = waiting[0]
    return total - _SLACK * size


def crown_bounds(graph: Graph, region: Region, bounds: list[Interval] | None = None) -> list[Interval]:
    """Bounds of every node; those that feed a non-linear operation are refined by backward lines.

    Only elements whose sign is open are refined where a ReLU follows: the others' relaxation is exact already.
    Costs up to two backward passes per element of each such layer, and stores `_CHUNK` numbers at a time.
    """
    bounds = list(interval_bounds(graph, region) if bounds is None else bounds)
    for here, node in enumerate(graph.nodes):
        if isinstance(node.operation, Activation | MaxPool) and node.parents[0] != 0:
            parent = node.parents[0]
            if _follows_nonlinear(graph, parent) or region.center is not None:
                bounds[parent] = _refined(graph, region, bounds, parent, node.operation is RELU)
            _forward_again(graph, bounds, parent, here)
    return bounds


def _follows_nonlinear(graph: Graph, place: int) -> bool:
    """False for a first layer, where intervals are about as good as lines (exact for one matrix and a box)."""
    todo = [place]
    while todo:
        node = graph.nodes[todo.pop()]
        if node.operation is not None and not isinstance(node.operation, Affine):
            return True
        todo.extend(node.parents)
    return False


def _forward_again(graph: Graph, bounds: list[Interval], start: int, last: int) -> None:
    """Lets a refinement at `start` reach the nodes up to `last` by intervals."""
    for here in range(start + 1, last + 1):
        node = graph.nodes[here]
        assert node.operation is not None
        bounds[here] = bounds[here].meet(node.operation.interval(*(bounds[p] for p in node.parents)))


def _refined(graph: Graph, region: Region, bounds: list[Interval], place: int, only_open: bool) -> Interval:
    lower, upper = (bound.flatten(1).clone() for bound in bounds[place])
    batch, width = lower.shape
    wanted = ((lower < 0) & (upper > 0)).any(0) if only_open else torch.ones_like(lower[0], dtype=torch.bool)
    elements = wanted.nonzero()[:, 0]
    if not len(elements):
        return bounds[place]
    widest = max(bound.lower[0].numel() for bound in bounds)
    for chunk in elements.split(max(1, _CHUNK // (2 * batch * widest))):
        ones = torch.zeros(len(chunk), width, dtype=lower.dtype, device=lower.device)
        ones[torch.arange(len(chunk)), chunk] = 1
        rows = torch.cat([ones, -ones]).reshape(1, -1, *graph.nodes[place].shape)
        least = lower_bounds(graph, region, bounds, place, rows.expand(batch, *rows.shape[1:]))
        lower[:, chunk] = torch.maximum(lower[:, chunk], least[:, : len(chunk)])
        upper[:, chunk] = torch.minimum(upper[:, chunk], -least[:, len(chunk) :])
    return Interval(lower.reshape(bounds[place].lower.shape), upper.reshape(bounds[place].upper.shape))
