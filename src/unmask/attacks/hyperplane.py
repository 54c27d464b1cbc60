"""The smallest step to a hyperplane that stays in the box, for each norm."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import Unsupported
from ..threat import L1, L2, Linf, ThreatModel

Images = Float[Tensor, "batch *dims"]
Rows = Float[Tensor, "batch dims"]


def to_hyperplane(threat: ThreatModel, x: Images, normal: Images, gap: Float[Tensor, " batch"]) -> Images:
    """The `delta` of least norm with `normal · delta = gap` and `x + delta` in the box.

    Where the box does not reach the hyperplane, the corner nearest to it.

    **Raises** `Unsupported` for a norm without such a projection.
    **Source**: Croce & Hein 2020, arXiv:1907.02044, section 3.1.
    **Differs**: the Linf and L2 multipliers come from Newton's method instead of a sort.
    """
    if not isinstance(threat, Linf | L2 | L1):
        raise Unsupported(
            f"no projection onto a hyperplane is known for {type(threat).__name__}; use Linf, L2 or L1"
        )
    low, high = threat.box
    # In units of the radii, where the norm is the plain one; the direction in which normal · delta grows to gap.
    towards = threat.from_units(normal).flatten(1) * gap.sign()[:, None]
    up, down = (threat.in_units(side).flatten(1) for side in (high - x, x - low))
    room = torch.where(towards > 0, up, down).clamp_min(0)
    slope = towards.abs()
    if isinstance(threat, Linf):
        size = _fill(slope, torch.ones_like(slope), room, gap.abs())
    elif isinstance(threat, L2):
        size = _fill(slope, slope, room, gap.abs())
    else:
        size = _fill_steepest_first(slope, room, gap.abs())
    return threat.from_units((towards.sign() * size).reshape(x.shape))


def _fill(slope: Rows, speed: Rows, room: Rows, gap: Tensor) -> Rows:
    """`min(t * speed, room)` for the `t` at which its product with `slope` is `gap`.

    That product is concave and piecewise linear in `t`, so that Newton's method from zero climbs to the root
    and ends after finitely many steps.
    """
    gap = gap[:, None]
    t = torch.zeros_like(gap)
    free = room > 0
    for _ in range(slope.shape[1]):
        rate = (slope * speed * free).sum(1, keepdim=True)
        filled = (slope * room * ~free).sum(1, keepdim=True)
        t = torch.where(rate > 0, (gap - filled) / rate.clamp_min(1e-38), t)
        still = free & (t * speed < room)
        if torch.equal(still, free):
            break
        free = still
    # Out of room everywhere that counts: `t` no longer says how far, and every pixel goes to the wall.
    reached = (slope * torch.minimum(t * speed, room)).sum(1, keepdim=True) >= gap * (1 - 1e-5)
    return torch.where(reached, torch.minimum(t * speed, room), torch.where(slope > 0, room, 0.0))


def _fill_steepest_first(slope: Rows, room: Rows, gap: Tensor) -> Rows:
    """Moves the pixels with the largest slope to the wall, one after the other, until the gap is closed."""
    order = slope.argsort(1, descending=True)
    slope, room = slope.gather(1, order), room.gather(1, order)
    gain = slope * room
    missing = gap[:, None] - (gain.cumsum(1) - gain)  # before this pixel moves
    size = torch.minimum((missing / slope.clamp_min(1e-38)).clamp_min(0), room)
    return torch.zeros_like(size).scatter_(1, order, torch.where(slope > 0, size, 0.0))
