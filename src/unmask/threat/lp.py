"""Balls of a p-norm: everything that depends on p stands here and nowhere else."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from ..errors import UnusableInput
from ..randomness import Streams
from ..types import per_example
from .base import Images, ThreatModel, Values


def _norms(flat: Tensor, p: float) -> Tensor:
    """p-norm of each row, keeping the dimension. Scaled by the largest entry, so that 1e-30 does not underflow."""
    largest = flat.abs().amax(1, keepdim=True)
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    return largest * torch.linalg.vector_norm(flat / safe, p, dim=1, keepdim=True)


class NormBall(ThreatModel):
    """The perturbation's p-norm is at most `epsilon`: a convex ball, in which slopes say where to go.

    **Class fields**
    - `p`, `dual_p`: of the norm and of its dual.
    """

    p: ClassVar[float]
    dual_p: ClassVar[float]

    def distance(self, x_adv: Images, x: Images) -> Values:
        """Norm of the difference, computed in float64."""
        return _norms((x_adv.double() - x.double()).flatten(1), self.p)[:, 0]

    def widest(self, shape: Sequence[int]) -> float:
        """The p-norm of the box's diagonal.

        >>> L2(epsilon=0.5).widest((1, 4, 4))
        4.0
        """
        return (self.box[1] - self.box[0]) * math.prod(shape) ** (1 / self.p)

    def check_radius(self, shape: Sequence[int]) -> None:
        """Refuses a radius at which every image is allowed; it is nearly always one in units of 0 to 255.

        >>> Linf(epsilon=8).check_radius((1, 8, 8))
        Traceback (most recent call last):
        ...
        unmask.errors.UnusableInput: epsilon is 8, and no two images in [0, 1] are further apart than 1 (linf, ...
        """
        low, high = self.box
        widest = self.widest(shape)
        if self.epsilon < widest:
            return
        way_out = f"give one below {widest:g}"
        if self.epsilon / 255 * (high - low) < widest:
            in_units = "" if high - low == 1 else f" x {high - low:g}"
            way_out = f"did you mean {self.epsilon:g}/255{in_units}?"
        raise UnusableInput(
            f"epsilon is {self.epsilon:g}, and no two images in [{low:g}, {high:g}] are further apart than {widest:g} "
            f"({self.norm}, {math.prod(shape)} numbers each): {way_out}"
        )

    def scaled(self, factor: float) -> NormBall:
        """The ball with `factor` times the radius."""
        return replace(self, epsilon=factor * self.epsilon)

    def around(self, shape: Sequence[int]) -> NormBall:
        """Itself."""
        return self

    def within(self, x_adv: Images, x: Images, radius: Values) -> Images:
        """As `project`, with a radius `[batch]` of each example's own.

        Drawn straight towards `x` where the norm knows no better.
        """
        share = (radius / self.distance(x_adv, x).clamp_min(1e-38)).clamp_max(1).to(x.dtype)
        return torch.lerp(x, x_adv, per_example(share, x)).clamp_(*self.box)

    def ascend(self, x_adv: Images, grad: Images, length: Values) -> Images:
        """`x_adv` moved by `length` `[batch]` along the direction in which a linear function grows fastest."""
        step = self.steepest_ascent(grad).mul_(per_example(length, grad).to(grad.dtype))
        return step.add_(x_adv).clamp_(*self.box)

    @abstractmethod
    def steepest_ascent(self, grad: Images) -> Images:
        """The direction of unit norm along which a linear function grows fastest; zero where the gradient is zero.

        Always a new tensor, which the caller may write into.
        """

    def random_point(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        """A random point of the sphere; under L-inf a corner of the ball."""
        streams = Streams.of(generator, len(x))
        noise = streams.normal(*x.shape[1:], device=x.device).to(x.dtype)
        return self.settle(x + self.epsilon * self.steepest_ascent(noise), x)

    def settle(self, x_adv: Images, x: Images) -> Images:
        low, high = self.box
        x_adv = self.project(x_adv, x)
        for _ in range(8):
            x_adv = x_adv.clamp(low, high)
            outside = self.distance(x_adv, x) > self.epsilon
            if not outside.any():
                return x_adv
            x_adv = torch.where(per_example(outside, x), self._shrink(x_adv, x), x_adv)
        outside = self.distance(x_adv, x) > self.epsilon
        return torch.where(per_example(outside, x), x, x_adv)

    def _shrink(self, x_adv: Images, x: Images) -> Images:
        return x + (x_adv - x) * (1 - 1e-6)


@dataclass(frozen=True, kw_only=True)
class Linf(NormBall):
    """Every pixel may move by at most `epsilon`."""

    norm: ClassVar[str] = "linf"
    p: ClassVar[float] = torch.inf
    dual_p: ClassVar[float] = 1.0

    def distance(self, x_adv: Images, x: Images) -> Values:
        return (x_adv.double() - x).flatten(1).abs_().amax(1)

    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        low, high = self.box
        # One new tensor at most, not four: on the hot path of every attack, allocation costs more than arithmetic.
        return torch.sub(x_adv, x, out=out).clamp_(-self.epsilon, self.epsilon).add_(x).clamp_(low, high)

    def within(self, x_adv: Images, x: Images, radius: Values) -> Images:
        most = per_example(radius, x).to(x.dtype)
        return torch.sub(x_adv, x).clamp_(-most, most).add_(x).clamp_(*self.box)

    def projection(self, x: Images) -> Callable[[Images], Images]:
        # Ball and box are one box around each example: a step's projection is one pass over the pixels, not four.
        low, high = (torch.sub(x, r).clamp_(*self.box) for r in (self.epsilon, -self.epsilon))
        return lambda x_adv: x_adv.clamp_(low, high)

    def steepest_ascent(self, grad: Images) -> Images:
        return grad.sign()

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        streams = Streams.of(generator, len(x))
        noise = streams.uniform(*x.shape[1:], device=x.device).to(x.dtype)
        start = x + noise.mul_(2).sub_(1).mul_(self.epsilon)
        return self.project(start, x, out=start)

    def settle(self, x_adv: Images, x: Images) -> Images:
        # The nearest float to the nearest point; where that was rounded out of the ball, the next one inside is not.
        delta = (x_adv.double() - x).clamp_(-self.epsilon, self.epsilon)
        nearest = delta.add_(x).to(x.dtype).clamp_(*self.box)
        outside = (nearest.double() - x).abs_() > self.epsilon
        return torch.where(outside, torch.nextafter(nearest, x), nearest)


@dataclass(frozen=True, kw_only=True)
class L2(NormBall):
    """The Euclidean length of the perturbation is at most `epsilon`."""

    norm: ClassVar[str] = "l2"
    p: ClassVar[float] = 2.0
    dual_p: ClassVar[float] = 2.0

    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        # Ball first, then box: the box contains x and is convex, so clamping only shortens the perturbation.
        delta = (x_adv - x).flatten(1)
        length = _norms(delta, 2.0)
        scale = torch.where(
            length > self.epsilon, self.epsilon / length.clamp_min(1e-38), torch.ones_like(length)
        )
        return torch.add(x, (delta * scale).reshape(x.shape), out=out).clamp_(*self.box)

    def steepest_ascent(self, grad: Images) -> Images:
        flat = grad.flatten(1)
        largest = flat.abs().amax(1, keepdim=True)
        flat = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
        length = torch.linalg.vector_norm(flat, 2.0, dim=1, keepdim=True)
        return (flat / torch.where(length > 0, length, torch.ones_like(length))).reshape(grad.shape)

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        streams = Streams.of(generator, len(x))
        noise = streams.normal(*x.shape[1:], device=x.device)
        dims = noise[0].numel() if len(x) else 1
        radius = self.epsilon * streams.uniform(device=x.device) ** (1 / dims)
        length = torch.linalg.vector_norm(noise.flatten(1), 2.0, dim=1).clamp_min(1e-30)
        # Inside the ball already, and clamping only shortens: no projection.
        return (x + noise.mul_(per_example(radius / length, x)).to(x.dtype)).clamp_(*self.box)


@dataclass(frozen=True, kw_only=True)
class L1(NormBall):
    """The absolute changes sum to at most `epsilon`.

    **Source**: Croce & Hein 2021 (arXiv:2103.01208) for the projection onto the intersection of ball and box and for
    the sparse steepest ascent.
    """

    norm: ClassVar[str] = "l1"
    p: ClassVar[float] = 1.0
    dual_p: ClassVar[float] = torch.inf

    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        return self._project(x_adv, x, self.epsilon, out)

    def within(self, x_adv: Images, x: Images, radius: Values) -> Images:
        return self._project(x_adv, x, radius.to(x.dtype)[:, None])

    def ascend(self, x_adv: Images, grad: Images, length: Values) -> Images:
        # One pixel would soon stand at the wall: the steepest are moved to it one after the other.
        low, high = self.box
        flat = x_adv.flatten(1)
        slope, order = grad.flatten(1).abs().sort(1, descending=True)
        towards = grad.flatten(1).gather(1, order).sign()
        at = flat.gather(1, order)
        room = torch.where(towards > 0, high - at, at - low) * (slope > 0)
        left = length.to(flat.dtype)[:, None] - (room.cumsum(1) - room)
        step = torch.minimum(room, left.clamp_min(0)) * towards
        return (flat + torch.zeros_like(flat).scatter_(1, order, step)).reshape(x_adv.shape)

    def _project(self, x_adv: Images, x: Images, radius: float | Tensor, out: Images | None = None) -> Images:
        # The Euclidean projection onto {|delta|_1 <= eps, lo <= delta <= hi} soft-thresholds and clips by one shared
        # multiplier: delta_i = clip(sign(d_i) max(|d_i| - lam, 0), lo_i, hi_i). Bisection on lam, 50 halvings.
        low, high = self.box
        d = (x_adv - x).flatten(1)
        room = torch.where(d >= 0, high - x.flatten(1), x.flatten(1) - low)
        size = d.abs()

        def kept(lam: Tensor) -> Tensor:
            return torch.minimum((size - lam).clamp_min(0), room)

        bottom = torch.zeros_like(size[:, :1])
        top = size.amax(1, keepdim=True)
        inside = kept(bottom).sum(1, keepdim=True) <= radius
        for _ in range(50):
            middle = (bottom + top) / 2
            over = kept(middle).sum(1, keepdim=True) > radius
            bottom, top = torch.where(over, middle, bottom), torch.where(over, top, middle)
        lam = torch.where(inside, torch.zeros_like(top), top)
        return torch.add(x, (d.sign() * kept(lam)).reshape(x.shape), out=out).clamp_(low, high)

    def steepest_ascent(self, grad: Images) -> Images:
        flat = grad.flatten(1)
        largest = flat.abs().argmax(1, keepdim=True)
        chosen = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
        return chosen.reshape(grad.shape)

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        # Uniform in the ball: Laplace-distributed coordinates, normalised, times a radius.
        streams = Streams.of(generator, len(x))
        shape = x.shape[1:]
        size = -(1 - streams.uniform(*shape, device=x.device)).log()
        noise = size * streams.signs(*shape, device=x.device)
        dims = noise[0].numel() if len(x) else 1
        radius = self.epsilon * streams.uniform(device=x.device) ** (1 / dims)
        length = torch.linalg.vector_norm(noise.flatten(1), 1.0, dim=1).clamp_min(1e-30)
        return (x + noise.mul_(per_example(radius / length, x)).to(x.dtype)).clamp_(*self.box)
