"""A gradient estimator says how the objective changes with the input; a field of every gradient attack."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..classifier import Classifier
from ..objectives import Objective
from ..randomness import Streams
from ..types import Outputs

Images = Float[Tensor, "batch *dims"]


@dataclass(frozen=True)
class Estimate:
    """What one call of an estimator found.

    **Fields**
    - `value`: objective per example `[batch]`, no graph.
    - `grad`: shape of `x`.
    - `outputs`: logits at `x` (the mean over draws where there are several), no graph.
    """

    value: Float[Tensor, " batch"]
    grad: Images
    outputs: Outputs


Slopes = Literal["autograd", "differences"]


class GradientEstimator(ABC):
    """Estimates value and gradient of an objective at `x`."""

    @property
    def slopes(self) -> Slopes:
        """Where they come from: autograd, repaired or not, or differences of answers. Around another, that one's."""
        inner = getattr(self, "inner", None)
        return inner.slopes if isinstance(inner, GradientEstimator) else "autograd"

    @abstractmethod
    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        """Never changes `x`, the network's mode or any `.grad`."""

    def scored(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        """As `estimate`, where no step follows: `grad` says nothing.

        **Cost**: that of `estimate`, or less.
        """
        return self.estimate(classifier, objective, x, y, generator=generator)


@dataclass(frozen=True)
class Exact(GradientEstimator):
    """The gradient that autograd computes.

    **Cost**: one forward, one backward; a forward where it is only `scored`.
    """

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        x = (
            x.detach().clone().requires_grad_()
        )  # its own memory: a network can find the leaf through the graph
        with torch.enable_grad():
            outputs = classifier(x, generator=generator)
            value = objective(outputs, y)
            grad = classifier.gradient(value, x)
        return Estimate(value.detach(), grad, outputs.detach())

    def scored(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        x = x.detach().clone()  # its own memory, as above
        with torch.no_grad():
            outputs = classifier(x, generator=generator)
            value = objective(outputs, y)
        return Estimate(value.detach(), torch.zeros_like(x), outputs.detach())
