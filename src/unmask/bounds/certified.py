"""Certificates: lower bounds of the margin that hold for every allowed input, not only for those that were tried."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..threat import ThreatModel, norm_ball
from .regional import Certificate, Method, certify_region
from .relaxation.crown import Region
from .relaxation.graph import read_graph

Images = Float[Tensor, "batch *dims"]
Labels = Int[Tensor, " batch"]


def certify(
    network: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    *,
    methods: tuple[Method, ...] = ("interval", "crown"),
) -> Certificate:
    """Lower bounds of the margin on ball and box, by one method after the other until an example is certified.

    **Arguments**
    - `network`: Linear, Conv2d, ReLU, sigmoid, tanh, pooling, batch norm (eval), reshapes, sums, constants.
    - `methods`: cheapest first. `interval` costs two forwards. `crown` pulls up to two rows per hidden element of open
      sign back to the input. `alpha_crown` adds 20 optimiser steps on the slopes of the last rows.

    Bounds are computed in float64 with outward slack and hold for the network in exact arithmetic; `certified` also
    leaves room for the float32 rounding of the deployed network (an allowance, not a proof).

    **Raises** `Unsupported` for a network with any other operation.
    """
    return certify_region(network, region_of(x, threat), y, goal=threat.goal, methods=methods)


def region_of(x: Images, threat: ThreatModel, radius: Float[Tensor, " batch"] | None = None) -> Region:
    """Ball and box around each example. `radius` `[batch]` replaces `threat.epsilon`.

    Where radii differ under L2 or L1, the smallest box around the ball: that is sound, and looser.
    """
    ball = norm_ball(threat, "a certificate")
    center = x.double()
    if radius is None:
        radius = center.new_full((len(x),), threat.epsilon)
    reach = radius.reshape(-1, *[1] * (x.ndim - 1)) * ball.unit(center)
    low, high = threat.box
    lower, upper = (center - reach).clamp(low, high), (center + reach).clamp(low, high)
    if ball.p == torch.inf or ball.weights is not None:
        return Region(lower, upper)
    return Region(lower, upper, center, radius, ball.dual_p)


def certified_radius(
    network: nn.Module,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    *,
    methods: tuple[Method, ...] = ("interval", "crown"),
    halvings: int = 10,
) -> Float[Tensor, " batch"]:
    """The largest radius found, up to `threat.epsilon`, at which each example is certified; 0 where none is.

    Bisection, each example with its own radius: within `epsilon * 2**-halvings` of the largest that the methods can
    prove. Costs `halvings + 1` certificates.
    """
    graph = read_graph(network, x)
    good = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    bad = torch.full_like(good, 2 * threat.epsilon)  # so that the first radius tried is epsilon itself
    for _ in range(halvings + 1):
        radius = (good + bad) / 2
        todo = (radius <= threat.epsilon).nonzero()[:, 0]
        region = region_of(x[todo], threat, radius[todo])
        proved = certify_region(graph, region, y[todo], goal=threat.goal, methods=methods).certified
        good[todo[proved]] = radius[todo[proved]]
        bad[todo[~proved]] = radius[todo[~proved]]
        bad = bad.clamp_max(torch.maximum(good, good.new_tensor(threat.epsilon)))
    return good
