"""BPDA: the forward pass is the network's own, the backward pass is a differentiable surrogate's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..classifier import Classifier, Network
from ..errors import Unsupported
from ..objectives import Objective
from ..randomness import Streams
from ..types import Outputs
from .base import Estimate, Exact, GradientEstimator, Images


def _straight_through(true: Tensor, surrogate: Tensor) -> Tensor:
    """Exactly `true` in the forward pass, `surrogate` in the backward pass, but for where that is not finite."""
    return true + (surrogate - surrogate.detach()).nan_to_num(0.0)  # infinity minus infinity is no number


class StraightThrough(nn.Module):
    """A transformation with its own values and its surrogate's slope: BPDA of one part of a network.

    `Transformed(StraightThrough(g), f)` is the lecture's special case: the gradient of f, taken at g(x), with g
    taken for the identity on the way back.

    **Arguments**
    - `true`: g; it runs without autograd.
    - `surrogate`: a differentiable function with results of the same shape, or None for the identity. Of torch's
      random numbers it sees those that g sees, so that one with a mask of its own has the same mask.

    **Raises** `Unsupported` where the surrogate's results have another shape than those of `true`.
    """

    def __init__(self, true: Callable[[Tensor], Tensor], surrogate: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.true = true
        self.surrogate = surrogate

    def forward(self, x: Tensor) -> Tensor:
        """The values of `true(x)`, exactly."""
        slope = x
        if self.surrogate is not None:
            with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
                slope = self.surrogate(x)
        with torch.no_grad():
            value = self.true(x)
        if slope.shape != value.shape:
            raise Unsupported(
                f"the transformation makes {list(value.shape)} of {list(x.shape)}, its surrogate "
                f"{list(slope.shape)}; give `surrogate` a function with results of the same shape"
            )
        return _straight_through(value, slope)


@dataclass(frozen=True)
class BPDA(GradientEstimator):
    """Backward pass differentiable approximation of the whole network.

    The objective is differentiated with respect to the logits at the *network's* logits, and this is pulled
    back to the input through the Jacobian of the surrogate. Value and outputs are the network's own.

    **Fields**
    - `surrogate`: a differentiable network from the same inputs to the same logits, or None for the
      classifier's own.
    - `same_values`: promises that the surrogate's logits are the network's, as those of a network with
      `StraightThrough` parts are, so that one forward pass serves for both.

    **Cost**: one forward of the network, one forward and one backward of the surrogate, each counted; the first
    is saved by `same_values`.
    **Raises** `Unsupported` when there is no surrogate, or when its logits have another shape.
    **Source**: Athalye, Carlini & Wagner 2018, arXiv:1802.00420, section 4.1.2.
    """

    surrogate: Network | None = None
    same_values: bool = False

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        surrogate = classifier.surrogate if self.surrogate is None else self.surrogate
        if surrogate is None:
            raise Unsupported(
                "`BPDA` needs a surrogate; this classifier has none. Use `classifier.with_surrogate(f)`."
            )
        if self.same_values:
            through = classifier.replace(network=surrogate)
            return Exact().estimate(through, objective, x, y, generator=generator)
        streams = Streams.of(generator, len(x))
        x = x.detach()
        with torch.no_grad():
            outputs = classifier(x, generator=streams)
        x = x.clone().requires_grad_()
        with torch.enable_grad():
            differentiated = classifier.replace(network=surrogate)(x, generator=streams)
            if differentiated.logits.shape != outputs.logits.shape:
                raise Unsupported(
                    f"the surrogate's logits have shape {list(differentiated.logits.shape)}, the network's "
                    f"{list(outputs.logits.shape)}; `BPDA` needs a surrogate with the same classes"
                )
            score = outputs.detector_score
            if score is not None and differentiated.detector_score is not None:
                score = _straight_through(score, differentiated.detector_score)
            value = objective(Outputs(_straight_through(outputs.logits, differentiated.logits), score), y)
            grad = classifier.gradient(value, x)
        return Estimate(value.detach(), grad, outputs)
