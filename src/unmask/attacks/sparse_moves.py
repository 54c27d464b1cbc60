"""What one query of Sparse-RS changes: some of the pixels, or a patch's place or content."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..randomness import Streams
from ..threat import Counted, Patch

Images = Float[Tensor, "batch *dims"]
Draws = Float[Tensor, "batch draws"]


def _ends(draws: Tensor, box: tuple[float, float], like: Tensor) -> Tensor:
    """Random ends of the box."""
    return torch.where(draws >= 0.5, box[1], box[0]).to(like.dtype)


@dataclass(frozen=True)
class PixelMoves:
    """Some changed pixels go back, and as many others take random ends of the box.

    The state is the image. **Source**: the paper's algorithm 2. **Differs**: a new pixel may be one that has changed
    already, which then takes new values.
    """

    threat: Counted
    x: Images
    ahead: ClassVar[int] = 16

    def take(self, chosen: Tensor) -> PixelMoves:
        return PixelMoves(self.threat, self.x[chosen])

    def image(self, state: Tensor) -> Images:
        return state

    def start(self, streams: Streams) -> Images:
        return self.threat.random_point(self.x, generator=streams)

    def _rows(self, t: Images) -> Float[Tensor, "batch channels units"]:
        """One column for each unit that counts."""
        units = self.threat.units(t[:1]).numel()
        return t.reshape(len(t), -1, units)

    @property
    def _count(self) -> int:
        return int(min(self.threat.epsilon, self._rows(self.x).shape[2]))

    def draw(self, streams: Streams, queries: int) -> Float[Tensor, "batch queries draws"]:
        """Of each changed pixel: a number that says who goes back; a new place; its values there."""
        return streams.uniform(queries, self._count * (2 + self._rows(self.x).shape[1]), device=self.x.device)

    def propose(self, state: Images, share: float, draws: Draws) -> Images:
        x, current = self._rows(self.x), self._rows(state)
        k, (_, channels, units) = self._count, x.shape
        if not k:
            return state
        moved = max(round(share * k), 1)
        changed = (x != current).any(1)
        # As many as may change: those that have, then any.
        members = changed.byte().sort(dim=1, descending=True, stable=True).indices[:, :k]
        back = members.gather(1, draws[:, :k].topk(moved, dim=1).indices)
        point = current.scatter(2, _each_channel(back, channels), x.gather(2, _each_channel(back, channels)))
        place = _each_channel((draws[:, k : k + moved] * units).long(), channels)
        values = draws[:, 2 * k :].reshape(-1, channels, k)[:, :, :moved]
        # Where two new places coincide, the larger value: which of them is written last is not settled otherwise.
        values = _ends(values, self.threat.box, state)
        return point.scatter_reduce(2, place, values, "amax", include_self=False).reshape(state.shape)


def _each_channel(index: Int[Tensor, "batch some"], channels: int) -> Int[Tensor, "batch channels some"]:
    return index[:, None].expand(-1, channels, -1)


@dataclass(frozen=True)
class PatchMoves:
    """The patch goes elsewhere with what it shows, or one square of it takes other values.

    The state is a canvas as large as the image that holds the patch in its place, and one channel more that is one
    there. **Source**: the paper's section 4.2. **Differs**: which of the two it is, is drawn each time; half the
    moves lead anywhere; the patch begins as a grid of squares.
    """

    threat: Patch
    x: Images
    ahead: ClassVar[int] = 64
    moving: ClassVar[float] = 0.25  # share of the queries that move the patch; the paper's one in four
    leaping: ClassVar[float] = 0.5  # share of these that take it anywhere, not only near; ours
    cells: ClassVar[int] = 4  # squares along a side at the start

    def take(self, chosen: Tensor) -> PatchMoves:
        return PatchMoves(self.threat, self.x[chosen])

    def image(self, state: Tensor) -> Images:
        return torch.where(state[:, -1:] > 0, state[:, :-1], self.x)

    @property
    def _spatial(self) -> torch.Size:
        return self.x.shape[2:]

    @property
    def _sides(self) -> tuple[int, ...]:
        return self.threat.sides(self._spatial)

    def start(self, streams: Streams) -> Tensor:
        corner = self.threat.random_corner(self.x, generator=streams)
        shown = streams.uniform(*self.x.shape[1:], device=self.x.device)
        for dim, (side, size) in enumerate(zip(self._sides, self._spatial, strict=True), 2):
            cell = max(side // self.cells, 1)
            shown = shown.index_select(dim, torch.arange(size, device=self.x.device) // cell)
        canvas = _ends(shown, self.threat.box, self.x)
        mask = self.threat.placed(corner, self._spatial)
        return torch.cat([canvas, mask.to(canvas.dtype)], 1)

    def draw(self, streams: Streams, queries: int) -> Float[Tensor, "batch queries draws"]:
        """Which move, and how far; along each dimension where to, and where the square begins; its values."""
        numbers = 2 + 2 * len(self._spatial) + self.x.shape[1]
        return streams.uniform(queries, numbers, device=self.x.device)

    def propose(self, state: Tensor, share: float, draws: Draws) -> Tensor:
        dims = len(self._spatial)
        move, leap, far, where = (
            draws[:, 0] < self.moving,
            draws[:, 1] < self.leaping,
            draws[:, 2 : 2 + dims],
            draws[:, 2 + dims : 2 + 2 * dims],
        )
        corner = torch.stack([_first(state[:, -1] > 0, dim) for dim in range(1, 1 + dims)], 1)
        moved = state
        inside = torch.ones_like(state[:, -1:], dtype=torch.bool)
        for dim, (side, size) in enumerate(zip(self._sides, self._spatial, strict=True)):
            reach = max(round(share * size), 1)
            near = corner[:, dim] + (far[:, dim] * (2 * reach + 1)).long() - reach
            anywhere = (far[:, dim] * (size - side + 1)).long()
            shift = torch.where(leap, anywhere, near).clamp(0, size - side) - corner[:, dim]
            moved = _rolled(moved, shift, dim + 2)
            square = max(round(math.sqrt(share) * side), 1)
            first = corner[:, dim] + (where[:, dim] * (side - square + 1)).long()
            place = torch.arange(size, device=state.device)
            along = (place >= first[:, None]) & (place < first[:, None] + square)
            inside = inside & along.reshape(-1, 1, *[size if d == dim else 1 for d in range(dims)])
        values = _ends(draws[:, 2 + 2 * dims :], self.threat.box, state).reshape(
            *draws.shape[:1], -1, *[1] * dims
        )
        shown = torch.where(inside, values, state[:, :-1])
        kind = move.reshape(-1, *[1] * (dims + 1))
        return torch.where(kind, moved, torch.cat([shown, state[:, -1:]], 1))


def _first(mask: Tensor, dim: int) -> Int[Tensor, " batch"]:
    """The first place along a dimension where anything is set."""
    others = [d for d in range(1, mask.ndim) if d != dim]
    return (mask.any(dim=others) if others else mask).int().argmax(1)


def _rolled(t: Tensor, shift: Int[Tensor, " batch"], dim: int) -> Tensor:
    """Each example's own cyclic shift along a dimension."""
    size = t.shape[dim]
    source = (torch.arange(size, device=t.device) - shift[:, None]) % size
    shape = [len(t), *[1] * (t.ndim - 1)]
    shape[dim] = size
    return t.gather(dim, source.reshape(shape).expand(t.shape))
