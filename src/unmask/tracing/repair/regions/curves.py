"""The curve of a function that several operations are, of each element by itself, smeared until it is flat nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ...pointwise import beginning
from ...suspect import Analysis, Asks, Suspect
from ..rules import Bridge
from .likeness import source_of

# Names, and shares of its argument's root mean square that a function is smeared over. Ours.
SHARES = {"curve": 0.5, "curve, narrow": 0.125}
# Places at which the curve is kept, and widths that it goes on for beyond what was seen. Ours.
PLACES, BEYOND = 65, 1.0


def curves_along(analysis: Analysis, guilty: list[Suspect]) -> dict[str, tuple[str, tuple[Bridge, ...]]]:
    """Bridges along the curve of each function that is flat together, by how wide it is smeared; in words."""
    found = {name: tuple(_bridges(analysis, guilty, share)) for name, share in SHARES.items()}
    return {
        name: (f"the curve that it ends, smeared over {SHARES[name]:.2g} of its argument's size", along)
        for name, along in found.items()
        if along
    }


def _bridges(analysis: Analysis, guilty: list[Suspect], share: float) -> Iterator[Bridge]:
    for s in guilty:
        end = s.records[-1] if s.symptom.asks is Asks.LESS_GAIN and s.records else None
        start = None if end is None else beginning(analysis.base.records, end)
        source = None if start is None else source_of(analysis, start)
        if end is None or start is None or source is None or start.kept is None:
            continue
        fit = curve(start.data.flatten(), end.outputs[0].data.flatten(), share)
        if fit is not None:
            yield Bridge(source[0], end.group, 1.0, source[1], fit=fit)


def curve(given: Tensor, made: Tensor, share: float) -> tuple[object, ...] | None:
    """As a `fit` of `Bridge`: where it begins, its places' distance, and its value at each; None where nothing changes.

    **Arguments**
    - `given`, `made`: `[elements]`; numbers and what became of them.
    - `share`: over which share of the numbers' root mean square it is smeared.
    """
    given, made = given.double(), made.double()
    known = given.isfinite() & made.isfinite()
    given, made = given[known], made[known]
    if len(given) < 2 or given.amax() == given.amin() or made.amax() == made.amin():
        return None
    width = float(share * given.square().mean().sqrt())
    low, high = float(given.amin()) - BEYOND * width, float(given.amax()) + BEYOND * width
    step = (high - low) / (PLACES - 1)
    places = low + step * torch.arange(PLACES, dtype=torch.double, device=given.device)
    order = given.argsort()
    given, made = given[order], made[order]
    # On a line from one number to the next first: where many lie close together, they would count for more.
    after = torch.searchsorted(given, places).clamp(1, len(given) - 1)
    span = (given[after] - given[after - 1]).clamp_min(1e-12)
    part = ((places - given[after - 1]) / span).clamp(0, 1)
    values = made[after - 1].lerp(made[after], part)
    weights = torch.exp(-0.5 * ((places[:, None] - places) / max(width, step)) ** 2)
    smeared = (weights @ values) / weights.sum(1)
    return (
        "curve",
        float(f"{low:.6g}"),
        float(f"{step:.6g}"),
        tuple(float(f"{v:.5g}") for v in smeared.tolist()),
    )
