"""Balls of a p-norm: everything that depends on p stands here and nowhere else."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UnusableInput
from ..randomness import Streams
from ..types import per_example
from .base import Images, ThreatModel, Values
from .weights import Weights, check_count, shaped, split


def _norms(flat: Tensor, p: float) -> Tensor:
    """p-norm of each row, keeping the dimension. Scaled by the largest entry, so that 1e-30 does not underflow."""
    largest = flat.abs().amax(1, keepdim=True)
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    return largest * torch.linalg.vector_norm(flat / safe, p, dim=1, keepdim=True)


def _inside(exact: Images, x: Images) -> Images:
    """The floats nearest to points, in float64, that are not further from `x`, and of its type."""
    nearest = exact.to(x.dtype)
    further = (nearest.double() - x).abs_() > (exact - x).abs_()
    return torch.where(further, torch.nextafter(nearest, x), nearest)


@dataclass(frozen=True, kw_only=True)
class NormBall(ThreatModel):
    """The perturbation's p-norm is at most `epsilon`: a convex ball, in which slopes say where to go.

    A list for `epsilon` gives each channel or feature a radius of its own: the norm is that of the perturbation in
    units of them, and what has radius zero does not move. This class alone rescales; attacks go on as in their papers.

    **Fields**
    - `weights`: radius of each channel (or feature of a vector) as a share of `epsilon`, the largest; None where all
      are equal.

    **Class fields**
    - `p`, `dual_p`: of the norm and of its dual.

    >>> L2([0.2, 0.1]).distance(torch.tensor([[0.2, 0.1]]), torch.zeros(1, 2)).item() / 2**0.5
    0.2...
    """

    weights: Weights | None = None

    p: ClassVar[float]
    dual_p: ClassVar[float]

    def __post_init__(self) -> None:
        several = isinstance(self.epsilon, Tensor | np.ndarray) and self.epsilon.ndim > 0
        if several or isinstance(self.epsilon, list | tuple):
            epsilon, weights = split(list(self.epsilon))  # pyright: ignore[reportArgumentType]
            object.__setattr__(self, "epsilon", epsilon)
            object.__setattr__(self, "weights", weights)
        super().__post_init__()

    @property
    def radii(self) -> list[float] | None:
        """The radius of each channel or feature; None where all have `epsilon`."""
        return None if self.weights is None else [w * self.epsilon for w in self.weights]

    def unit(self, like: Images) -> Tensor | float:
        """What counts as one in each place of inputs like these: 1.0, or the weights, shaped to them."""
        return 1.0 if self.weights is None else shaped(self.weights, like)

    def reach(self, like: Images) -> Tensor | float:
        """How far each place alone may move: `epsilon`, or one radius a channel, shaped to inputs like these."""
        return self.epsilon if self.weights is None else self.epsilon * shaped(self.weights, like)

    def in_units(self, delta: Images) -> Images:
        """A perturbation in units of the weights, in which the ball is that of the plain norm.

        What has weight zero does not move, and is zero.
        """
        if self.weights is None:
            return delta
        unit = shaped(self.weights, delta)
        return torch.where(unit > 0, delta / torch.where(unit > 0, unit, 1.0), 0.0)

    def from_units(self, delta: Images) -> Images:
        """The perturbation of which `in_units` is given, or a gradient by what is given there."""
        return delta if self.weights is None else delta * shaped(self.weights, delta)

    def held(self, x_adv: Images, x: Images) -> Images:
        """`x_adv`, but for what has weight zero, which is as in `x`."""
        if self.weights is None or 0.0 not in self.weights:
            return x_adv
        return torch.where(shaped(self.weights, x) > 0, x_adv, x)

    def covers(self, other: ThreatModel) -> bool:
        return super().covers(other) and isinstance(other, NormBall) and other.weights == self.weights

    def distance(self, x_adv: Images, x: Images) -> Values:
        """Norm of the difference, computed in float64; infinite where something of radius zero has moved."""
        delta = x_adv.double() - x.double()
        if self.weights is None:
            return _norms(delta.flatten(1), self.p)[:, 0]
        stuck = ((shaped(self.weights, delta) == 0) & (delta != 0)).flatten(1).any(1)
        return torch.where(stuck, torch.inf, _norms(self.in_units(delta).flatten(1), self.p)[:, 0])

    def length(self, delta: Images) -> Values:
        """Norm of a perturbation, in its own precision."""
        return torch.linalg.vector_norm(self.in_units(delta).flatten(1), self.p, dim=1)

    def dual_length(self, grad: Images) -> Values:
        """Dual norm of a gradient, in its own precision: the rate at which it can grow in this norm."""
        return torch.linalg.vector_norm(self.from_units(grad).flatten(1), self.dual_p, dim=1)

    def widest(self, shape: Sequence[int]) -> float:
        """The p-norm of the box's diagonal, of what may move.

        >>> L2(epsilon=0.5).widest((1, 4, 4))
        4.0
        """
        across = self.box[1] - self.box[0]
        if self.weights is None:
            return across * math.prod(shape) ** (1 / self.p)
        check_count(len(self.weights), shape)
        each = torch.tensor([across / w for w in self.weights if w > 0], dtype=torch.float64)
        return float(torch.linalg.vector_norm(each, self.p)) * math.prod(shape[1:]) ** (1 / self.p)

    def check_radius(self, shape: Sequence[int]) -> None:
        """Refuses a radius at which every image is allowed; it is nearly always one in units of 0 to 255.

        >>> Linf(epsilon=8).check_radius((1, 8, 8))
        Traceback (most recent call last):
        ...
        unmask.errors.UnusableInput: epsilon is 8, and no two images in [0, 1] are further apart than 1 (linf, ...
        """
        low, high = self.box
        widest = self.widest(shape)
        if self.p == math.inf and self.radii is not None and self.epsilon > high - low:
            raise UnusableInput(
                f"a radius is {self.epsilon:g}, and no value in [{low:g}, {high:g}] can move by more than "
                f"{high - low:g}: give radii in units of the box"
            )
        if self.epsilon < widest or (self.weights is not None and 0.0 in self.weights):
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
        x_adv = self.held(x_adv, x)
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
        outside = ~self.contains(x_adv, x)
        if not outside.any():
            return x_adv
        # In 16 bits rounding to the nearest would leave the ball for more than half of the examples in L2.
        exact = self.project(x_adv.double(), x.double()).sub_(x).mul_(1 - 1e-12).add_(x)
        inside = _inside(exact, x).clamp_(*self.box)
        inside = torch.where(per_example(self.distance(inside, x) > self.epsilon, x), x, inside)
        return torch.where(per_example(outside, x), inside, x_adv)


@dataclass(frozen=True, kw_only=True)
class Linf(NormBall):
    """Every pixel may move by at most `epsilon`."""

    norm: ClassVar[str] = "linf"
    p: ClassVar[float] = torch.inf
    dual_p: ClassVar[float] = 1.0

    def distance(self, x_adv: Images, x: Images) -> Values:
        if self.weights is not None:
            return super().distance(x_adv, x)
        return (x_adv.double() - x).flatten(1).abs_().amax(1)

    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        low, high = self.box
        # One new tensor at most, not four: on the hot path of every attack, allocation costs more than arithmetic.
        most = self.reach(x)
        return torch.sub(x_adv, x, out=out).clamp_(-most, most).add_(x).clamp_(low, high)  # type: ignore[arg-type]

    def within(self, x_adv: Images, x: Images, radius: Values) -> Images:
        most = per_example(radius, x).to(x.dtype) * self.unit(x)
        return torch.sub(x_adv, x).clamp_(-most, most).add_(x).clamp_(*self.box)

    def projection(self, x: Images) -> Callable[[Images], Images]:
        # Ball and box are one box around each example: a step's projection is one pass over the pixels, not four.
        # Its ends are floats inside: a point that is a rounding outside may fool a network that is a staircase, end the
        # attack, and fool nobody once it is settled.
        exact, most = x.double(), self.reach(x.double())
        low, high = (_inside(exact + end, x).clamp_(*self.box) for end in (-most, most))
        return lambda x_adv: x_adv.clamp_(low, high)

    def steepest_ascent(self, grad: Images) -> Images:
        return self.from_units(grad.sign())

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        streams = Streams.of(generator, len(x))
        noise = streams.uniform(*x.shape[1:], device=x.device).to(x.dtype)
        start = x + noise.mul_(2).sub_(1).mul_(self.reach(x))
        return self.project(start, x, out=start)

    def settle(self, x_adv: Images, x: Images) -> Images:
        # The nearest float to the nearest point; where that was rounded out of the ball, the next one inside is not.
        most = self.reach(x_adv.double())
        delta = (x_adv.double() - x).clamp_(-most, most)  # type: ignore[arg-type]
        nearest = delta.add_(x).to(x.dtype).clamp_(*self.box)
        outside = (nearest.double() - x).abs_() > most
        return torch.where(outside, torch.nextafter(nearest, x), nearest)


@dataclass(frozen=True, kw_only=True)
class L2(NormBall):
    """The Euclidean length of the perturbation is at most `epsilon`."""

    norm: ClassVar[str] = "l2"
    p: ClassVar[float] = 2.0
    dual_p: ClassVar[float] = 2.0

    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        # Ball first, then box: the box contains x and is convex, so clamping only shortens the perturbation.
        delta = self.in_units(x_adv - x).flatten(1)
        length = _norms(delta, 2.0)
        scale = torch.where(
            length > self.epsilon, self.epsilon / length.clamp_min(1e-38), torch.ones_like(length)
        )
        return torch.add(x, self.from_units((delta * scale).reshape(x.shape)), out=out).clamp_(*self.box)

    def steepest_ascent(self, grad: Images) -> Images:
        flat = self.from_units(grad).flatten(1)
        largest = flat.abs().amax(1, keepdim=True)
        flat = flat / torch.where(largest > 0, largest, torch.ones_like(largest))
        length = torch.linalg.vector_norm(flat, 2.0, dim=1, keepdim=True)
        return self.from_units(
            (flat / torch.where(length > 0, length, torch.ones_like(length))).reshape(grad.shape)
        )

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        streams = Streams.of(generator, len(x))
        noise = streams.normal(*x.shape[1:], device=x.device)
        dims = noise[0].numel() if len(x) else 1
        radius = self.epsilon * streams.uniform(device=x.device) ** (1 / dims)
        length = torch.linalg.vector_norm(noise.flatten(1), 2.0, dim=1).clamp_min(1e-30)
        # Inside the ball already, and clamping only shortens: no projection.
        return (x + self.from_units(noise.mul_(per_example(radius / length, x)).to(x.dtype))).clamp_(
            *self.box
        )


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
        grad = self.from_units(grad)
        slope, order = grad.flatten(1).abs().sort(1, descending=True)
        towards = grad.flatten(1).gather(1, order).sign()
        up, down = (self.in_units(side).flatten(1).gather(1, order) for side in (high - x_adv, x_adv - low))
        room = torch.where(towards > 0, up, down) * (slope > 0)
        left = length.to(room.dtype)[:, None] - (room.cumsum(1) - room)
        step = torch.minimum(room, left.clamp_min(0)) * towards
        return x_adv + self.from_units(torch.zeros_like(step).scatter_(1, order, step).reshape(x_adv.shape))

    def _project(self, x_adv: Images, x: Images, radius: float | Tensor, out: Images | None = None) -> Images:
        # The Euclidean projection onto {|delta|_1 <= eps, lo <= delta <= hi} soft-thresholds and clips by one shared
        # multiplier: delta_i = clip(sign(d_i) max(|d_i| - lam, 0), lo_i, hi_i). Bisection on lam, 50 halvings.
        low, high = self.box
        d = self.in_units(x_adv - x).flatten(1)
        room = torch.where(d >= 0, *(self.in_units(side).flatten(1) for side in (high - x, x - low)))
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
        delta = self.from_units((d.sign() * kept(lam)).reshape(x.shape))
        return torch.add(x, delta, out=out).clamp_(low, high)

    def steepest_ascent(self, grad: Images) -> Images:
        flat = self.from_units(grad).flatten(1)
        largest = flat.abs().argmax(1, keepdim=True)
        chosen = torch.zeros_like(flat).scatter_(1, largest, flat.gather(1, largest).sign())
        return self.from_units(chosen.reshape(grad.shape))

    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        # Uniform in the ball: Laplace-distributed coordinates, normalised, times a radius.
        streams = Streams.of(generator, len(x))
        shape = x.shape[1:]
        size = -(1 - streams.uniform(*shape, device=x.device)).log()
        noise = size * streams.signs(*shape, device=x.device)
        dims = noise[0].numel() if len(x) else 1
        radius = self.epsilon * streams.uniform(device=x.device) ** (1 / dims)
        length = torch.linalg.vector_norm(noise.flatten(1), 1.0, dim=1).clamp_min(1e-30)
        return (x + self.from_units(noise.mul_(per_example(radius / length, x)).to(x.dtype))).clamp_(
            *self.box
        )
