"""Bridges in a running pass: what stood before the region that is crossed, joined to what comes out behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..intercept.operations import WRITES, tensors_in
from ..record.freeze import exchange
from .by_rule import first_float
from .joints import Joints
from .rules import INPUT, Bridge, Group, fitted
from .surrogate_gradient import SurrogateGradient


class Spans:
    """The bridges of a rewrite during one pass, which begins with `x`.

    **Fields**
    - `targets`: bridges by the operation that they end at.
    - `sources`: operations that a bridge begins at.
    """

    def __init__(self, bridges: Sequence[Bridge], x: Tensor, joints: Joints):
        self.targets = {b.target: b for b in bridges}
        self.sources = {b.source for b in bridges}
        self._held: dict[tuple[Group, int], list[Tensor]] = {(INPUT, 0): [x]}
        self._ordinals: dict[Group, int] = {}
        self._joints = joints

    def next(self, group: Group) -> int:
        """How often an operation ran before in this pass."""
        ordinal = self._ordinals[group] = self._ordinals.get(group, -1) + 1
        return ordinal

    def hold(self, group: Group, ordinal: int, tensors: list[Tensor]) -> None:
        """Keeps what an operation gave, if a bridge begins there."""
        if group in self.sources:
            self._held[group, ordinal] = tensors

    def _source(self, bridge: Bridge, ordinal: int) -> Tensor | None:
        if bridge.pairing == "stack":
            held = [
                v[bridge.output] for (group, _), v in sorted(self._held.items()) if group == bridge.source
            ]
            return torch.stack(held) if held else None
        last = max((n for group, n in self._held if group == bridge.source), default=-1)
        found = self._held.get((bridge.source, min(ordinal, last) if bridge.pairing == "each" else 0))
        if found is None or bridge.output >= len(found):
            return None
        tensor = found[bridge.output]
        if bridge.pairing == "item":
            return tensor[ordinal] if ordinal < len(tensor) else None
        return tensor

    def bridged_argument(self, bridge: Bridge, ordinal: int, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments of an operation that a bridge ends in front of."""
        given = list(tensors_in(args))
        assert bridge.argument is not None
        if bridge.argument >= len(given):
            return args
        old = given[bridge.argument]
        new = self.bridged(bridge, ordinal, "", old, ())
        return args if new is old else exchange(args, {id(old): new})

    def bridged(self, bridge: Bridge, ordinal: int, name: str, result: Any, args: tuple[Any, ...]) -> Any:
        """The result of an operation that a bridge ends behind."""
        source = first_float(args) if bridge.alone else self._source(bridge, ordinal)
        target = args[0] if name in WRITES else result
        if isinstance(target, (tuple, list)):
            target = next((t for t in target if isinstance(t, Tensor)), None)
        if source is None or not isinstance(target, Tensor) or not source.requires_grad:
            return result
        with torch.enable_grad():
            try:
                if bridge.surrogate is not None:
                    surrogate = bridge.surrogate(source).reshape(target.shape)
                else:
                    surrogate = fitted(source, bridge.fit, target.shape) * bridge.slope
            except RuntimeError:
                return result  # shapes that change from pass to pass
            if not target.is_floating_point():
                self._joints.lay(target, surrogate)
                return result
            joined = SurrogateGradient.apply(target.detach(), surrogate)
            if name in WRITES or (args and result is args[0]):
                args[0].copy_(joined)
                return result
        return exchange(result, {id(target): joined})
