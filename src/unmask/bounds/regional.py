"""Certificates of regions: lower bounds of the margin for every input in a box, or in a box cut with a ball."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..errors import Unsupported, UnusableInput
from .relaxation.crown import Region, crown_bounds, interval_bounds, lower_bounds
from .relaxation.graph import Graph, read_graph
from .relaxation.operations import Interval
from .relaxation.slopes import optimised_rows

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]
Method = Literal["interval", "crown", "alpha_crown"]
METHODS: tuple[Method, ...] = ("interval", "crown", "alpha_crown")
Goal = Literal["untargeted", "targeted"]

# A certificate is about exact arithmetic; the deployed network rounds to float32. Margins below this share of the
# largest logit bound are left uncertified, because rounding of about 1e-6 per operation could decide them.
_FLOAT32_ALLOWANCE = 1e-5
# Examples bounded together: a hidden element is refined if its sign is open for any of them.
_PART = 4


@dataclass(frozen=True)
class Certificate:
    """What is proved about each example.

    **Fields**
    - `margins`: `[batch, classes]`, lower bounds of `logit[y] - logit[k]` over the region (of `logit[k] - logit[y]`
      where the goal is targeted and `y` is the class to reach); +inf at `k = y`. Float64.
    - `margin`: `[batch]`, what decides: the smallest of them (targeted: the largest, because one class that always
      beats `y` is enough).
    - `certified`: `[batch]`, True where no allowed input reaches the adversary's goal.
    - `method`: the cheapest method that certified each example, or the last one tried.
    """

    margins: Float[Tensor, "batch classes"]
    margin: Float[Tensor, " batch"]
    certified: Bool[Tensor, " batch"]
    method: tuple[Method, ...]


def certify_box(
    network: nn.Module,
    lower: Images,
    upper: Images,
    y: Labels,
    *,
    methods: tuple[Method, ...] = ("interval", "crown"),
) -> Certificate:
    """As `certify`, for a box of inputs given by its corners, such as a verification benchmark's."""
    return certify_region(network, Region(lower.double(), upper.double()), y, methods=methods)


def certify_region(
    network: nn.Module | Graph,
    region: Region,
    y: Labels,
    *,
    goal: Goal = "untargeted",
    methods: tuple[Method, ...] = ("interval", "crown"),
) -> Certificate:
    """As `certify`, for any region. The network may be a graph that `read_graph` made before."""
    for method in methods:
        if method not in METHODS:
            raise UnusableInput(f"the method is {method!r}; choose among {', '.join(METHODS)}")
    graph = network if isinstance(network, Graph) else read_graph(network, region.lower)
    if len(graph.nodes[-1].shape) != 1:
        raise Unsupported(
            f"bounds need logits [batch, classes]; one example gives {list(graph.nodes[-1].shape)}"
        )
    with torch.no_grad():
        parts = [
            _certify_part(graph, region[part], y[part], goal, methods)
            for part in torch.arange(len(y), device=y.device).split(_PART)
        ]
    margins = (
        torch.cat([p.margins for p in parts]) if parts else y.new_zeros(0, graph.nodes[-1].shape[0]).double()
    )
    return Certificate(
        margins,
        torch.cat([p.margin for p in parts]) if parts else margins.new_zeros(0),
        torch.cat([p.certified for p in parts]) if parts else y.bool(),
        tuple(m for p in parts for m in p.method),
    )


def _certify_part(
    graph: Graph, region: Region, y: Labels, goal: Goal, methods: tuple[Method, ...]
) -> Certificate:
    classes = graph.nodes[-1].shape[0]
    eye = torch.eye(classes, dtype=torch.float64, device=y.device)
    rows = eye[y][:, None] - eye  # row k is logit[y] - logit[k]
    if goal == "targeted":
        rows = -rows
    own = eye[y].bool()
    middle = (region.lower + region.upper) / 2
    allowance = _FLOAT32_ALLOWANCE * graph(middle).abs().amax(1)
    margins = region.lower.new_full((len(y), classes), -torch.inf)
    used: list[Method] = [methods[0]] * len(y)
    left = torch.arange(len(y), device=y.device)
    bounds, refined = interval_bounds(graph, region), False
    for method in methods:
        for place in left.tolist():
            used[place] = method
        part = region[left]
        if method != "interval" and not refined:
            bounds, refined = crown_bounds(graph, part, bounds), True
        found = _margins(graph, part, bounds, rows[left], method)
        margins[left] = torch.maximum(margins[left], found)
        stay = _deciding(margins[left], own[left], goal) <= allowance[left]
        left, bounds = left[stay], [Interval(b.lower[stay], b.upper[stay]) for b in bounds]
        if not len(left):
            break
    margin = _deciding(margins, own, goal)
    return Certificate(margins.masked_fill(own, torch.inf), margin, margin > allowance, tuple(used))


def _margins(graph: Graph, region: Region, bounds: list[Interval], rows: Tensor, method: Method) -> Tensor:
    last = len(graph.nodes) - 1
    if method == "interval":
        return lower_bounds(graph, region, bounds, last, rows, only_affine=True)
    if method == "crown":
        return lower_bounds(graph, region, bounds, last, rows)
    return optimised_rows(graph, region, bounds, last, rows)


def _deciding(margins: Tensor, own: Tensor, goal: Goal) -> Tensor:
    if goal == "targeted":
        return margins.masked_fill(own, -torch.inf).amax(1)
    return margins.masked_fill(own, torch.inf).amin(1)
