"""Float64: the same network in double precision, for gradients that underflow in single."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import ModelFailed, Unsupported
from ..objectives import Objective
from ..randomness import Streams
from ..state.exchanged import call_with
from ..types import Outputs, per_example
from .base import Estimate, Exact, GradientEstimator, Images


@dataclass(frozen=True)
class _InDouble:
    """The network with its floating parameters and buffers cast to float64 for one call; itself untouched."""

    network: nn.Module

    def __call__(self, x: Tensor) -> Tensor | Outputs:
        # Cast at every call: small beside the pass, and never stale when the parameters change.
        tensors = (*self.network.named_parameters(), *self.network.named_buffers())
        cast = {
            name: t.detach().double() if t.is_floating_point() else t.detach().clone() for name, t in tensors
        }
        return call_with(self.network, cast, x)


def _fitted(grad: Tensor, dtype: torch.dtype) -> Tensor:
    """The gradient in `dtype`, each example scaled to a largest entry of one where it would not fit."""
    largest = grad.abs().flatten(1).amax(1)
    limits = torch.finfo(dtype)
    # A factor of 1e6 above the smallest normal number keeps the smaller entries, too.
    fits = (
        (largest == 0) | ~torch.isfinite(largest) | ((largest > limits.tiny * 1e6) & (largest < limits.max))
    )
    return (grad / per_example(torch.where(fits, torch.ones_like(largest), largest), grad)).to(dtype)


@dataclass(frozen=True)
class Float64(GradientEstimator):
    """Runs network, objective and gradient in double precision and casts the result back.

    Where a gradient is too small or too large for the dtype of `x` it is scaled to a largest entry of one:
    its direction, which is what ascent steps use, survives the cast; its length does not.

    **Fields**
    - `inner`: estimates in double precision.

    **Cost**: that of `inner`; about twice the time on a CPU, far more on most GPUs.
    **Raises** `Unsupported` for networks that are not an `nn.Module` or that fail in double precision, for
    instance because they cast to float32 themselves.
    **Note**: past a margin of 37 a cross-entropy in double precision still is zero and its gradient lacks the
    label's own row, because `1 - p` cancels. Use the margin loss, or `Float64(LogitScale())`, which has neither.
    """

    inner: GradientEstimator = Exact()

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Int[Tensor, " batch"],
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        network = classifier.network
        if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
            raise Unsupported(
                f"`Float64` needs a plain nn.Module; this network is a {type(network).__name__}. "
                "Wrap it in a module, or use `LogitScale(scale='auto')`."
            )
        double = classifier.replace(network=_InDouble(network))
        try:
            est = self.inner.estimate(double, objective, x.double(), y, generator=generator)
        except ModelFailed as error:
            raise Unsupported(
                f"`Float64`: the network does not run in double precision ({error}); "
                "use `LogitScale(scale='auto')` instead"
            ) from error
        score = est.outputs.detector_score
        outputs = Outputs(est.outputs.logits.to(x.dtype), None if score is None else score.to(x.dtype))
        return Estimate(est.value.to(x.dtype), _fitted(est.grad, x.dtype), outputs)
