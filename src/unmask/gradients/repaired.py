"""The gradient of a network whose guilty operations have another backward pass."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..objectives import Labels, Objective
from ..randomness import Streams
from ..tracing.repair.rewrite import Rewritten
from ..tracing.repair.rules import Rewrite
from .base import Estimate, Exact, GradientEstimator, Images


@dataclass(frozen=True)
class Repaired(GradientEstimator):
    """BPDA where the tracer says it is needed: values are the network's own, slopes the rewrite's.

    **Fields**
    - `rewrite`: what the tracer changes in the backward pass.
    - `inner`: how the repaired network is differentiated, so that `EOT(Repaired(…))` and
      `Repaired(…, Float64())` both compose.

    **Cost**: that of `inner`.
    **Source**: Athalye et al. 2018, arXiv:1802.00420, section 4.1.
    **Differs**: the places and their surrogates are found by tracing, not by reading the code.
    """

    rewrite: Rewrite
    inner: GradientEstimator = Exact()

    def estimate(
        self,
        classifier: Classifier,
        objective: Objective,
        x: Images,
        y: Labels,
        *,
        generator: torch.Generator | Streams,
    ) -> Estimate:
        """As `GradientEstimator.estimate`."""
        repaired = classifier.replace(network=Rewritten(classifier.network, self.rewrite))
        return self.inner.estimate(repaired, objective, x, y, generator=generator)
