"""Optimised slopes (alpha-CROWN) for the last rows: the lower line of an open ReLU may have any slope in [0, 1].

**Source**: Xu et al. 2021, arXiv:2011.13824. **Differs**: only the slopes that the margins themselves use are
optimised; the bounds of hidden elements stay as CROWN left them.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .crown import Region, lower_bounds
from .graph import Graph
from .operations import RELU, Interval

# Ours; not tuned.
_STEPS = 20
_RATE = 0.1


def optimised_rows(
    graph: Graph,
    region: Region,
    bounds: list[Interval],
    place: int,
    rows: Float[Tensor, "batch specs *shape"],
) -> Float[Tensor, "batch specs"]:
    """The best lower bounds of `rows` of node `place` that are seen while Adam climbs on the slopes.

    Any slope is sound, so no iterate can overstate. Costs 20 forward-backward passes of `lower_bounds`.
    """
    slopes: dict[int, Tensor] = {}
    for here, node in enumerate(graph.nodes[:place]):
        if node.operation is RELU:
            lower, upper = bounds[node.parents[0]]
            start = (upper >= -lower).to(lower.dtype)[:, None]
            slopes[here] = start.repeat(1, rows.shape[1], *[1] * len(node.shape))
    best = lower_bounds(graph, region, bounds, place, rows)
    if not slopes:
        return best
    with torch.enable_grad():
        leaves = [slope.requires_grad_() for slope in slopes.values()]
        optimiser = torch.optim.Adam(leaves, lr=_RATE, maximize=True)
        for _ in range(_STEPS):
            found = lower_bounds(graph, region, bounds, place, rows, slopes=slopes)
            best = torch.maximum(best, found.detach())
            optimiser.zero_grad()
            found.sum().backward(inputs=leaves)
            optimiser.step()
            with torch.no_grad():
                for leaf in leaves:
                    leaf.clamp_(0, 1)
    return best
