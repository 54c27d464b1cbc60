"""Why robustness can cost accuracy: the model of Tsipras et al. 2019, in closed form and to draw from."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..data import Data
from ..errors import UnusableInput


@dataclass(frozen=True, kw_only=True)
class RobustAndWeakFeatures:
    """One feature that is mostly right and hard to move, and many that are weak and easy to move.

    The label y is -1 or 1 with equal chance; the first feature is y with probability `p` and -y otherwise; `weak`
    more are drawn independently from N(`eta` y, 1).

    Together the weak features tell nearly everything, but an adversary who may move each by `eta` (in the maximum
    norm) takes all of it. The first feature withstands every radius below 1 and is never right more often than `p`.

    **Fields**
    - `p`: in (0.5, 1).
    - `eta`: mean of a weak feature, above 0.
    - `weak`: how many there are; d - 1 in the lecture, d in the paper.

    **Source**: Tsipras et al. 2019, arXiv:1805.12152, section 2.1.

    >>> model = RobustAndWeakFeatures(p=0.9, eta=0.3, weak=100)
    >>> weights = torch.tensor([0.0] + [1.0] * 100)
    >>> [round(model.accuracy(weights, epsilon=e), 4) for e in (0.0, 0.3, 0.6)]
    [0.9987, 0.5, 0.0013]
    >>> round(model.accuracy(torch.tensor([1.0] + [0.0] * 100), epsilon=0.6), 4)
    0.9
    """

    p: float = 0.95
    eta: float = 0.3
    weak: int = 100

    def __post_init__(self) -> None:
        if not 0.5 < self.p < 1:
            raise UnusableInput(f"p is {self.p}; give a probability between 0.5 and 1")
        if not self.eta > 0 or self.weak < 1:
            raise UnusableInput(f"eta is {self.eta}, weak is {self.weak}; both must be above 0")

    def draw(self, count: int, *, generator: torch.Generator) -> Data:
        """Examples as images `[count, 1, 1, 1 + weak]` with no box, label 0 for -1 and 1 for 1."""
        y = torch.randint(2, (count,), generator=generator)
        sign = (2 * y - 1).float()
        kept = torch.rand(count, generator=generator) < self.p
        x = torch.randn(count, 1 + self.weak, generator=generator) + self.eta * sign[:, None]
        x[:, 0] = torch.where(kept, sign, -sign)
        return Data(x[:, None, None, :], y, "tsipras2019", "", torch.arange(count))

    def accuracy(
        self, weights: Float[Tensor, " features"], *, bias: float = 0.0, epsilon: float = 0.0
    ) -> float:
        """Chance that sign(weights . x + bias) is y whatever is done in the maximum norm up to `epsilon`.

        The adversary takes epsilon |w|_1 off the margin. What is left is Gaussian given y and the first feature, so
        the accuracy is a mean of four values of the normal distribution function. Exact for any weights.
        """
        w = weights.double()
        spread = w[1:].norm()
        total = 0.0
        for y in (-1, 1):
            for first, chance in ((1, self.p), (-1, 1 - self.p)):
                mean = first * w[0] + self.eta * w[1:].sum() + y * bias - epsilon * w.abs().sum()
                # Without weak features the margin is no longer random.
                right = torch.special.ndtr(mean / spread) if spread > 0 else (mean > 0).double()
                total += chance / 2 * float(right)
        return total

    def weak_needed(self, delta: float) -> int:
        """How many weak features alone are right with probability 1 - `delta` without an adversary: the least number.

        Phi(eta sqrt(n)) >= 1 - delta, so that n is the square of the normal quantile over eta^2: log(1 / delta) / eta^2
        up to a factor that grows to 2 as `delta` falls, and is never larger.

        **Source**: lecture notes, section 2.2: d of the order of log(1 / delta) / eta^2.

        >>> RobustAndWeakFeatures(eta=0.3).weak_needed(0.01)
        61
        """
        if not 0 < delta < 0.5:
            raise UnusableInput(f"delta is {delta}; give an error rate between 0 and 0.5")
        quantile = -float(torch.special.ndtri(torch.tensor(delta, dtype=torch.float64)))
        return math.ceil((quantile / self.eta) ** 2)

    def natural(self) -> Float[Tensor, " features"]:
        """Weights of the best classifier without an adversary: half the log-odds that each feature adds."""
        weights = torch.full((1 + self.weak,), self.eta, dtype=torch.float64)
        weights[0] = torch.tensor(self.p / (1 - self.p), dtype=torch.float64).log() / 2
        return weights

    def robust_ceiling(self, standard_accuracy: float) -> float:
        """Largest robust accuracy at epsilon of 2 eta or more for any classifier of that standard accuracy.

        **Source**: theorem 2.1 there: p / (1 - p) times the standard error.
        """
        return min(1.0, self.p / (1 - self.p) * (1 - standard_accuracy))
