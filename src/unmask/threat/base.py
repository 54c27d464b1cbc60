"""What a threat model answers: how far, whether allowed, the nearest allowed point, a random one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..errors import UnusableInput
from ..randomness import Streams

if TYPE_CHECKING:
    from .lp import NormBall

Images = Float[Tensor, "batch *dims"]
Values = Float[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True)
class ThreatModel(ABC):
    """What the adversary may do to an input.

    **Fields**
    - `epsilon`: radius, in units of the image range or as a count; zero is allowed (the null attack). A fraction may be
      given as text, `Linf("8/255")`.
    - `box`: smallest and largest valid pixel.
    - `goal`: `untargeted` (any wrong class) or `targeted` (then `y` holds the class to reach).

    **Class fields**
    - `norm`: its name in files and on the command line.
    """

    epsilon: float = field(kw_only=False)
    box: tuple[float, float] = (0.0, 1.0)
    goal: Literal["untargeted", "targeted"] = "untargeted"

    norm: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.epsilon, str):
            object.__setattr__(self, "epsilon", _number(self.epsilon))
        if isinstance(self.epsilon, list | tuple):
            raise UnusableInput(f"epsilon is {list(self.epsilon)}, and {self.norm} counts: give one number")
        if not self.epsilon >= 0:
            raise UnusableInput(f"epsilon is {self.epsilon}; give a number that is zero or larger")
        if not self.box[0] < self.box[1]:
            raise UnusableInput(f"the box is {self.box}; its first number must be below its second")

    @abstractmethod
    def distance(self, x_adv: Images, x: Images) -> Values:
        """How far apart, in the unit of `epsilon`, as float64."""

    @abstractmethod
    def widest(self, shape: Sequence[int]) -> float:
        """The largest distance of two inputs of that shape, without the batch, in the box."""

    @abstractmethod
    def check_radius(self, shape: Sequence[int]) -> None:
        """Refuses a radius at which every input of that shape, without the batch, is allowed: that is no limit at all.

        **Raises** `UnusableInput`.
        """

    @abstractmethod
    def scaled(self, factor: float) -> ThreatModel:
        """The same adversary with about `factor` times the radius: a count stays whole."""

    @abstractmethod
    def around(self, shape: Sequence[int]) -> NormBall:
        """A ball as large as the changes that are allowed, in which slopes are compared and networks moved."""

    @abstractmethod
    def project(self, x_adv: Images, x: Images, *, out: Images | None = None) -> Images:
        """A nearest point of ball and box, up to floating point. Not in place, unless `out` is `x_adv`."""

    def projection(self, x: Images) -> Callable[[Images], Images]:
        """`project` around `x`, in place: for the steps of an attack, which all have the same ball and box."""
        return lambda x_adv: self.project(x_adv, x, out=x_adv)

    @abstractmethod
    def random_start(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        """A random point of ball and box, in the memory format of `x`: arithmetic between two formats is slow."""

    @abstractmethod
    def random_point(self, x: Images, *, generator: torch.Generator | Streams) -> Images:
        """A random point of ball and box that is as far from `x` as is allowed."""

    @abstractmethod
    def settle(self, x_adv: Images, x: Images) -> Images:
        """Projects so that `contains` holds exactly, in float64, with no tolerance to argue about."""

    def covers(self, other: ThreatModel) -> bool:
        """Whether every input that `other`, of this kind, allows is allowed here, by the radii alone."""
        return other.epsilon <= self.epsilon

    def contains(self, x_adv: Images, x: Images) -> Bool[Tensor, " batch"]:
        """Finite, in the box, and in the ball (float64)."""
        flat = x_adv.flatten(1)
        low, high = self.box
        inside = (flat >= low).all(1) & (flat <= high).all(1) & torch.isfinite(flat).all(1)
        return inside & (self.distance(x_adv, x) <= self.epsilon)


def _number(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError) as error:
        raise UnusableInput(f"epsilon is {text!r}; give a number or a fraction, such as 8/255") from error
