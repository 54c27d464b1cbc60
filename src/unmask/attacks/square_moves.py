"""What one query of the Square attack changes, for each norm, vectorised with a window per example."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..randomness import Streams
from ..threat import L1, L2, Linf
from ..types import per_example

Images = Float[Tensor, "batch *dims"]
Draws = Float[Tensor, "batch draws"]


def _planes(x: Images) -> Float[Tensor, "batch channels height width"]:
    """Images as they are; vectors and signals as images of height one, volumes with a channel for each slice."""
    if x.ndim == 5:
        return x.flatten(1, 2)
    return x if x.ndim == 4 else x.reshape(len(x), -1, 1, x.shape[-1])


def _window(share: float, height: int, width: int) -> tuple[int, int]:
    """Height and width of a square over `share` of the pixels, longer where the image is too low or narrow for it."""
    side = max(round(math.sqrt(share * height * width)), 1)
    short, long = sorted((height, width))
    if side <= short:
        return side, side
    length = min(round(share * height * width / short), long)
    return (short, length) if height == short else (length, short)


def _inside(start: Tensor, length: int, size: int) -> Bool[Tensor, "batch size"]:
    """Which of `size` places lie in `[start, start + length)`."""
    place = torch.arange(size, device=start.device)
    return (place >= start[:, None]) & (place < start[:, None] + length)


@dataclass(frozen=True)
class LinfMoves:
    """Windows whose channels move to plus or minus epsilon. **Source**: the paper's algorithm 2."""

    threat: Linf
    x: Images
    ahead: ClassVar[int] = 64

    def take(self, chosen: Tensor) -> LinfMoves:
        return LinfMoves(self.threat, self.x[chosen])

    def image(self, state: Tensor) -> Images:
        return state

    def start(self, streams: Streams) -> Images:
        """Vertical stripes one pixel wide, each plus or minus epsilon."""
        planes = _planes(self.x)
        stripes = streams.signs(planes.shape[1], 1, planes.shape[3], device=planes.device).to(planes.dtype)
        moved = (planes + self._reach() * stripes).reshape(self.x.shape)
        return self.threat.project(moved, self.x)

    def _reach(self) -> Tensor | float:
        reach = self.threat.reach(self.x)
        return reach if isinstance(reach, float | int) else _planes(reach.expand_as(self.x))

    def draw(self, streams: Streams, queries: int) -> Float[Tensor, "batch queries draws"]:
        """The random numbers of some queries: row, column, and a sign for each channel."""
        return streams.uniform(queries, 2 + _planes(self.x).shape[1], device=self.x.device)

    def propose(self, state: Images, share: float, draws: Draws) -> Images:
        planes, current = _planes(self.x), _planes(state)
        _, _, height, width = planes.shape
        tall, wide = _window(share, height, width)
        rows = _inside((draws[:, 0] * (height - tall + 1)).long(), tall, height)
        columns = _inside((draws[:, 1] * (width - wide + 1)).long(), wide, width)
        window = rows[:, None, :, None] & columns[:, None, None, :]
        low, high = self.threat.box
        reach = self._reach()
        up, down = (planes + reach).clamp_max_(high), (planes - reach).clamp_min_(low)
        rise = (draws[:, 2:] >= 0.5)[:, :, None, None]
        target = torch.where(rise, up, down)
        useless = ((target == current) | ~window).flatten(1).all(1)
        target = torch.where(per_example(useless, target), torch.where(rise, down, up), target)
        return torch.where(window, target, current).reshape(state.shape)


@dataclass(frozen=True)
class LpMoves:
    """Moves the mass of one window, and what the ball still allows, into another one. For L2 and L1.

    Masses are those in units of the radii, where these differ.

    **Source**: the paper's algorithm 3, with the p-th power of the p-norm as the mass.
    """

    threat: L2 | L1
    x: Images
    ahead: ClassVar[int] = 64

    def take(self, chosen: Tensor) -> LpMoves:
        return LpMoves(self.threat, self.x[chosen])

    def image(self, state: Tensor) -> Images:
        return state

    def start(self, streams: Streams) -> Images:
        """A grid of five by five bumps with random signs, scaled to the edge of the ball."""
        planes = _planes(self.x)
        _, channels, height, width = planes.shape
        tall, wide = max(height // 5, 1), max(width // 5, 1)
        signs = streams.signs(channels, height // tall, width // wide, device=planes.device).to(planes.dtype)
        bumps = torch.kron(signs, _bump(tall, wide, planes))
        delta = torch.zeros_like(planes)
        top, left = (height - bumps.shape[2]) // 2, (width - bumps.shape[3]) // 2
        delta[:, :, top : top + bumps.shape[2], left : left + bumps.shape[3]] = bumps
        return self._on_edge(delta)

    def draw(self, streams: Streams, queries: int) -> Float[Tensor, "batch queries draws"]:
        """Two windows (row, column each), which way the bump stands, and a sign for each channel."""
        return streams.uniform(queries, 5 + _planes(self.x).shape[1], device=self.x.device)

    def propose(self, state: Images, share: float, draws: Draws) -> Images:
        delta = _planes(self.threat.in_units(state - self.x))
        _, _, height, width = delta.shape
        tall, wide = _window(share, height, width)
        tall, wide = min(max(tall | 1, 3), height), min(max(wide | 1, 3), width)  # odd: a bump has a middle
        row, column, other_row, other_column = (
            (draws[:, k] * (size + 1)).long() for k, size in enumerate([height - tall, width - wide] * 2)
        )
        window = (_inside(row, tall, height)[:, :, None] & _inside(column, wide, width)[:, None, :])[:, None]
        other = _inside(other_row, tall, height)[:, :, None] & _inside(other_column, wide, width)[:, None, :]
        both = window | other[:, None]
        p = self.threat.p
        unused = (self.threat.epsilon**p - delta.abs().pow(p).sum((1, 2, 3), keepdim=True)).clamp_min(0)
        mass = unused / delta.shape[1] + (delta * both).abs().pow(p).sum((2, 3), keepdim=True)

        signs = torch.where(draws[:, 5:] >= 0.5, 1.0, -1.0).to(delta.dtype)[:, :, None, None]
        bump = signs * self._placed_bumps(row, column, draws[:, 4] >= 0.5, tall, wide, delta)
        inside = delta * window
        bump = bump + inside / _norm(inside, p, (1, 2, 3))
        bump = bump / _norm(bump, p, (2, 3)) * mass.pow(1 / p)
        return self._on_edge(torch.where(window, bump, torch.where(both, torch.zeros_like(delta), delta)))

    def _placed_bumps(
        self, row: Tensor, column: Tensor, turned: Tensor, tall: int, wide: int, like: Tensor
    ) -> Tensor:
        """A bump in each example's window, zero elsewhere: `[batch, 1, height, width]`."""
        _, _, height, width = like.shape
        r = torch.arange(height, device=like.device) - row[:, None]
        c = torch.arange(width, device=like.device) - column[:, None]
        inside = ((r >= 0) & (r < tall))[:, :, None] & ((c >= 0) & (c < wide))[:, None, :]
        r, c = r.clamp(0, tall - 1)[:, :, None], c.clamp(0, wide - 1)[:, None, :]
        upright, lying = _bump(tall, wide, like), _bump(wide, tall, like).T
        values = torch.where(turned[:, None, None], lying[r, c], upright[r, c])
        return (values * inside)[:, None]

    def _on_edge(self, delta: Tensor) -> Images:
        scaled = delta * (self.threat.epsilon / _norm(delta, self.threat.p, (1, 2, 3)))
        return (self.x + self.threat.from_units(scaled.reshape(self.x.shape))).clamp_(*self.threat.box)


def _norm(delta: Tensor, p: float, dims: tuple[int, ...]) -> Tensor:
    return torch.linalg.vector_norm(delta, p, dim=dims, keepdim=True).clamp_min(1e-12)


def _bump(height: int, width: int, like: Tensor) -> Float[Tensor, "height width"]:
    """Two pyramids of opposite sign, one above the other, of Euclidean length one (the paper's eta)."""

    def pyramid(tall: int) -> Tensor:
        r = (torch.arange(tall) - tall // 2).abs()[:, None]
        c = (torch.arange(width) - width // 2).abs()[None, :]
        ring = torch.maximum(r, c)
        layers = 1.0 / torch.arange(1, max(tall // 2, width // 2) + 2) ** 2
        return layers.flip(0).cumsum(0).flip(0)[ring]  # sum of the layers at least as wide as the ring

    upper = height // 2
    both = torch.cat([pyramid(upper), -pyramid(height - upper)]) if upper else pyramid(height)
    return (both / both.norm()).to(like)
