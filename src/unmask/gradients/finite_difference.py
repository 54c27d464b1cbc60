"""Finite differences: a slope from values alone, where a backward pass cannot be trusted or had."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..objectives import Objective
from ..randomness import Streams
from .base import Estimate, GradientEstimator, Images, Slopes
from .outside import asked_at


@dataclass(frozen=True)
class FiniteDifference(GradientEstimator):
    """Central differences of each example's own objective, along random directions or along every coordinate.

    With directions `v` the estimate is the mean of `(f(x + delta v) - f(x - delta v)) / (2 delta) * v`. Its
    expectation is the gradient itself for quadratic objectives, and the gradient of a smoothed objective for
    others. Value and outputs are those at `x`.

    **Fields**
    - `method`: `spsa` (signs, Spall 1992), `nes` (Gaussian, antithetic pairs) or `coordinates` (every unit
      vector: no randomness, for tiny inputs).
    - `samples`: number of directions; `coordinates` takes as many as the input has numbers.
    - `delta`: half the distance between the two points, in units of the image range; the sigma of NES. The
      points may leave the box by that much: clipping them would bias the slope. Where a network raises on such
      points they are clipped all the same.
    - `chunk`: at most this many inputs go through the network in one call (one per example and direction), or
      the batch itself if that is larger.

    **Cost**: `2 * samples + 1` forwards per example, no backward.
    **Source**: Uesato et al. 2018, arXiv:1802.05666 (SPSA, delta 0.01); Ilyas et al. 2018, arXiv:1804.08598
    (NES).
    **Differs**: both points of a pair see the same randomness of a random network (common random numbers), so
    that its noise cancels in the difference.
    """

    method: Literal["spsa", "nes", "coordinates"] = "spsa"
    samples: int = 64
    delta: float = 0.01
    chunk: int = 1024

    @property
    def slopes(self) -> Slopes:
        return "differences"

    def __post_init__(self) -> None:
        if self.method not in ("spsa", "nes", "coordinates"):
            raise UnusableInput(
                f"`FiniteDifference` has method={self.method!r}; give spsa, nes or coordinates"
            )
        for name, number in (("samples", self.samples), ("chunk", self.chunk)):
            if number < 1:
                raise UnusableInput(f"`FiniteDifference` has {name}={number}; give at least 1")
        if not self.delta > 0:
            raise UnusableInput(f"`FiniteDifference` has delta={self.delta}; give a positive number")

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        # Own streams, because the number of calls below depends on the batch size through `chunk`.
        streams = Streams.of(generator, len(x)).spawn("FiniteDifference")
        x = x.detach()
        with torch.no_grad():
            outputs = classifier(x, generator=streams)
            value = objective(outputs, y)
            total, count = torch.zeros_like(x), 0
            for v in self._directions(x, streams.fork("directions")):
                k = len(v)
                slope = self._slopes(classifier, objective, x, y, v, streams)
                total += (slope.reshape(k, len(x), *[1] * (x.ndim - 1)) * v).sum(0)
                count += k
        return Estimate(value, total if self.method == "coordinates" else total / count, outputs)

    def _directions(self, x: Tensor, streams: Streams) -> Iterator[Tensor]:
        """Directions in groups `[k, batch, *dims]`, as many at a time as `chunk` allows."""
        group = max(1, self.chunk // max(1, len(x)))
        if self.method == "coordinates":
            for one in torch.eye(x[0].numel(), dtype=x.dtype, device=x.device).split(group):
                yield one.reshape(len(one), 1, *x.shape[1:]).expand(-1, len(x), *[-1] * (x.ndim - 1))
            return
        draw = streams.signs if self.method == "spsa" else streams.normal
        for start in range(0, self.samples, group):
            # One draw per direction: the directions must not depend on the batch size through `group`.
            k = min(group, self.samples - start)
            yield torch.stack([draw(*x.shape[1:], device=x.device).to(x.dtype) for _ in range(k)])

    def _slopes(
        self, classifier: Classifier, objective: Objective, x: Tensor, y: Tensor, v: Tensor, streams: Streams
    ) -> Tensor:
        """Directional derivatives `[k * batch]`, one per direction and example."""
        k = len(v)
        index = torch.arange(len(x), device=x.device).repeat(k)
        step = (self.delta * v).flatten(0, 1)
        objective, labels, middle = objective.take(index), y[index], x[index]
        both = torch.stack([middle + step, middle - step])

        def difference(points: Tensor) -> Tensor:
            # Equal streams for the two calls, then moved on: common random numbers.
            above = objective(classifier(points[0], generator=streams[:]), labels)
            return above - objective(classifier(points[1], generator=streams), labels)

        return asked_at(difference, both, x) / (2 * self.delta)
