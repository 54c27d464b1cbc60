"""Smoothing: the slope of the objective averaged over a small Gaussian cloud."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from ..classifier import Classifier
from ..errors import UnusableInput
from ..objectives import Objective
from ..randomness import Streams
from .base import Estimate, Exact, GradientEstimator, Images
from .outside import asked_at


@dataclass(frozen=True)
class Smoothing(GradientEstimator):
    """Gradient of the Gaussian-smoothed objective: the mean of the gradients at `x + sigma * noise`.

    It flattens high-frequency slopes that lead nowhere. Value and outputs are those at `x` itself, because
    they decide which iterate is kept and whether it fools the network; only the slope is smoothed.

    **Fields**
    - `inner`: estimates the gradient at one noisy point.
    - `sigma`: standard deviation of the noise in units of the image range. The noisy points may leave the
      box: clipping them would smooth less near black and white, where most pixels of many images are. Where a
      network raises on such points they are clipped all the same.
    - `draws`: number of noisy points.

    **Cost**: one forward, and `draws` inner estimates.
    **Source**: Smilkov et al. 2017, arXiv:1706.03825 (the same mean, for saliency maps).
    """

    inner: GradientEstimator = Exact()
    sigma: float = 0.05
    draws: int = 8

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UnusableInput(f"`Smoothing` has draws={self.draws}; give at least 1")
        if not self.sigma >= 0:
            raise UnusableInput(f"`Smoothing` has sigma={self.sigma}; give a number that is zero or larger")

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        streams = Streams.of(generator, len(x))
        x = x.detach()
        with torch.no_grad():
            outputs = classifier(x, generator=streams)
            value = objective(outputs, y)

        def at(points: Tensor) -> Tensor:
            return self.inner.estimate(classifier, objective, points, y, generator=streams).grad

        grad = torch.zeros_like(x)
        for _ in range(self.draws):
            noise = streams.normal(*x.shape[1:], device=x.device).to(x.dtype)
            grad += asked_at(at, x + self.sigma * noise, x)
        return Estimate(value, grad / self.draws, outputs)
