"""Stochastic activation pruning: neurons survive with a probability that grows with their size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..classifier import Classifier
from ..errors import UnusableInput
from .activations import ActivationsChanged
from .base import RandomDefense

Rows = Float[Tensor, "batch width"]
Activations = Float[Tensor, "batch *dims"]
SAMPLERS = ("multinomial", "bernoulli")


def survival(p: Rows, r: int) -> Rows:
    """Probability that r draws with replacement hit a neuron at least once: 1 - (1 - p)^r, also for tiny p."""
    # A last bit below p, so that the slope at p = 1 is finite: cheaper than a clamp, which autograd masks.
    return -torch.expm1(r * torch.log1p(p * -(1 - 2**-24)))


def multinomial_counts(p: Rows, r: int) -> Int[Tensor, "batch width"]:
    """How often each neuron is hit by exactly `r` draws with replacement.

    Independent Poisson counts with total n are multinomial given n, so that r - n more single draws complete
    them exactly. The rate is set five standard deviations below r, so that n > r is rare; such rows are drawn
    again, which biases nothing, for all that it depends on is n. A row of zeros gets no hits.

    **Cost**: one Poisson number a neuron and of the order of sqrt(r) draws, instead of r draws.
    """
    rate = max(0.0, r - 5 * math.sqrt(r))
    counts = torch.poisson(p * rate)
    total = counts.sum(1)
    while (over := total > r).any():
        counts = torch.where(over[:, None], torch.poisson(p * rate), counts)
        total = counts.sum(1)
    missing = (r - total).to(torch.int64) * (p.sum(1) > 0)
    most = int(missing.max())
    if most:
        alive = torch.where((p.sum(1) > 0)[:, None], p, torch.ones_like(p))  # torch refuses rows of zeros
        drawn = torch.multinomial(alive, most, replacement=True)
        wanted = torch.arange(most, device=p.device) < missing[:, None]
        counts.scatter_add_(1, drawn, wanted.to(counts.dtype))
    return counts.to(torch.int64)


class Pruning(nn.Module):
    """One layer's pruning; any shape `[batch, …]`.

    **Arguments**
    - `ratio`: number of draws r as a multiple of the layer's width (activations per example).
    - `sampler`: `multinomial` as in the paper, or `bernoulli`: each neuron for itself with the same probability
      of being kept, which neighbours then no longer compete for.
    """

    def __init__(self, ratio: float, sampler: Literal["multinomial", "bernoulli"]):
        super().__init__()
        self.ratio = ratio
        self.sampler = sampler

    def forward(self, h: Activations) -> Activations:
        """`h / q` where a neuron is kept, else zero; its expectation is `h`."""
        flat = h.flatten(1)
        r = max(1, round(self.ratio * flat.shape[1]))
        size = flat.abs()
        p = size * size.sum(1, keepdim=True).clamp_min(1e-30).reciprocal()
        q = survival(p, r)
        keep = self.kept(p.detach(), q.detach(), r).to(h.dtype)
        # Products and reciprocals, for autograd walks a division in four passes. 1e-18 is nothing to any q that a
        # kept neuron has, and where q is 0 the square of the reciprocal stays finite for the backward pass.
        return (flat * keep * (q + 1e-18).reciprocal()).view_as(h)

    def kept(self, p: Rows, q: Rows, r: int) -> Bool[Tensor, "batch width"]:
        """Which neurons survive this pass."""
        if self.sampler == "bernoulli":
            return torch.rand_like(q) < q
        return multinomial_counts(p, r) > 0


@dataclass(frozen=True, kw_only=True)
class SAP(RandomDefense):
    """Stochastic activation pruning after every non-linear layer of a trained network.

    From each layer `r` neurons are drawn with replacement, with probabilities p = abs(h) / sum abs(h). Those never
    drawn become zero, the others are divided by the probability q = 1 - (1 - p)^r of being drawn at all. For small
    p, h / q hardly depends on h: the gradient is masked, not only noisy.

    **Fields**
    - `ratio`: r as a multiple of the layer's width; 1 in the paper, 2 in the flawed evaluation of it.
    - `sampler`: `multinomial`, or its per-neuron approximation `bernoulli`.
    - `passes`, `average`: as `RandomDefense` has them; 100 passes in the paper.

    The classifier it returns has the undefended network for a surrogate. What counts as a non-linear layer:
    `activations.ActivationsChanged`.

    **Source**: Dhillon et al. 2018, arXiv:1803.01442. **Differs**: they say "mean of the outputs", without saying
    whether before or after the soft-max; ours is before it unless `average` says otherwise.
    """

    ratio: float = 1.0
    sampler: Literal["multinomial", "bernoulli"] = "multinomial"
    passes: int = 100

    def __post_init__(self) -> None:
        if not self.ratio > 0:
            raise UnusableInput(
                f"`SAP` has ratio={self.ratio}; give a positive multiple of the layer's width"
            )
        if self.sampler not in SAMPLERS:
            raise UnusableInput(f"`SAP` has sampler={self.sampler!r}; choose one of {', '.join(SAMPLERS)}")

    def wrap(self, classifier: Classifier) -> Classifier:
        """As `Defense.wrap`."""
        network = ActivationsChanged(classifier.network, Pruning(self.ratio, self.sampler))
        return self.randomised(classifier, network)
