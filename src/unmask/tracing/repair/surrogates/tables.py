"""Whole numbers of few levels: what arithmetic makes of a level is known for every level, so it is smoothed as a table.

A shift, a mask, a remainder or a Gray code of a level has no slope from one level to the next that says anything of the
third one. Done to the row of all levels, as the network itself does it, and smeared over as many levels as a surrogate
of the rounding is wide, it has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import Call
from .shadow import Made, Shadow, Table

# Most levels of a table. Width of the smoothing, as a share of the spread of the levels, at least half a level. Ours.
LEVELS = 4096
SHARE, LEAST = 0.25, 0.5


def tabled(call: Call, *, begun: bool = False) -> Shadow | None:
    """An operation on one level and plain numbers, or on two numbers of the same level; None where it is another.

    **Arguments**
    - `begun`: only of what has a table.
    """
    shadows = [call.shadow_of(a) for a in call.args]
    known = [None if s is None else s.table for s in shadows]
    if begun and not any(known):
        return None
    if not any(known):
        known = [None if s is None else _levels(a, s) for a, s in zip(call.args, shadows, strict=True)]
    root = next((t for t in known if t is not None), None)
    if root is None:
        return None
    row = []
    for a, shadow, table in zip(call.args, shadows, known, strict=True):
        if shadow is not None and shadow.value is root.root:  # the level itself, beside what was made of it
            row.append(torch.arange(len(root.row), device=root.row.device).add(root.lowest).to(a.dtype))
        elif table is not None and table.root is root.root and table.lowest == root.lowest:
            row.append(table.row)
        elif shadow is None and not (isinstance(a, Tensor) and a.numel() > 1):
            row.append(a)
        else:
            return None
    made = call.func(*row, **call.kwargs)
    if not isinstance(made, Tensor) or made.shape != root.row.shape or made.is_floating_point():
        return None
    table = Table(root.root, root.lowest, made)
    return Shadow(_read(table), table=table)


def or_else(rule: Callable[[Call], Made], *, begun: bool = False) -> Callable[[Call], Made]:
    """By the table, where there is one; else by another rule."""

    def either(call: Call) -> Made:
        made = tabled(call, begun=begun)
        return rule(call) if made is None else made

    return either


def _levels(of: Any, shadow: Shadow) -> Table | None:
    """All levels around those of a whole number that was not looked at so far."""
    if shadow.choice is not None or shadow.bits is not None or shadow.digit is not None:
        return None
    if of.dtype == torch.bool or of.is_floating_point() or of.is_quantized or not of.numel():
        return None
    low, high = int(of.min()), int(of.max())
    if not 1 < high - low < LEVELS:
        return None
    limits = torch.iinfo(of.dtype)
    low, high = max(low - 2, limits.min, 0 if low >= 0 else limits.min), min(high + 2, limits.max)
    return Table(shadow.value, low, torch.arange(low, high + 1, device=of.device).to(of.dtype))


def _read(table: Table) -> Tensor:
    """The smoothed row where the level stands, between two of its places."""
    root, row = table.root, table.row.to(table.root)
    width = max(SHARE * float(root.detach().std()) if root.numel() > 1 else LEAST, LEAST)
    reach = min(math.ceil(3 * width), len(row))
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=row.device) / width) ** 2).to(row)
    padded = F.pad(row[None, None], (reach, reach), mode="replicate")
    row = F.conv1d(padded, (bell / bell.sum())[None, None])[0, 0]
    place = (root - table.lowest).clamp(0, len(row) - 1)
    lower = place.detach().floor().long().clamp_max(len(row) - 2)
    return row[lower] + (row[lower + 1] - row[lower]) * (place - lower)
