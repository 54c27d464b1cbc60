"""Reduced gain: the gradient of a network whose saturated sigmoids are less steep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..classifier import Classifier
from ..errors import UnusableInput
from ..objectives import Objective
from ..randomness import Streams
from .base import Estimate, Exact, GradientEstimator, Images

_SIGMOIDS = frozenset(
    {
        *(torch.sigmoid, Tensor.sigmoid, torch.special.expit, torch.nn.functional.sigmoid),
        *(torch.tanh, Tensor.tanh, torch.nn.functional.tanh),
    }
)


class _Softened(TorchFunctionMode):
    """Multiplies what enters each sigmoid and tanh, modules' and functions', by a gain."""

    def __init__(self, gain: float):
        super().__init__()
        self.gain = gain

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in _SIGMOIDS and args:
            args = (args[0] * self.gain, *args[1:])
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class ReducedGain(GradientEstimator):
    """The gradient of the network with less steep sigmoids; value and outputs are the network's own.

    A saturated unit hardly moves when the gain falls, but its slope comes back from underflow. In-place and scripted
    sigmoids are left as they are.

    **Fields**
    - `gain`: factor on what enters each sigmoid and tanh, in (0, 1].
    - `inner`: how the softened network is differentiated.

    **Cost**: that of `inner`, and one forward.
    **Source**: Brendel & Bethge 2017, arXiv:1704.01547 ("stable" gradients).
    **Differs**: the tracer's `Gain` rewrite keeps every forward value and softens the slopes alone; here, as in the
    comment, later layers see softened values too.
    """

    gain: float
    inner: GradientEstimator = Exact()

    def __post_init__(self) -> None:
        if not 0 < self.gain <= 1:
            raise UnusableInput(f"`ReducedGain` has gain={self.gain}; give a number in (0, 1]")

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        """As `GradientEstimator.estimate`."""

        def softened(x: Tensor) -> Any:
            with _Softened(self.gain):
                return classifier.network(x)

        soft = self.inner.estimate(classifier.replace(network=softened), objective, x, y, generator=generator)
        with torch.no_grad():
            outputs = classifier(x, generator=generator)
            value = objective(outputs, y)
        return Estimate(value, soft.grad, outputs)
