"""Kernel density in the last hidden layer."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import UnusableInput
from .base import Detector, Images, Layers, Scores


class KernelDensity(Detector):
    """Minus the log-density of an input's hidden layer among training images of the class it is predicted as.

    **Arguments**
    - `network`: the undefended network.
    - `x`, `y`: clean training images and their labels, some of every class; all are kept.
    - `bandwidth`: standard deviation of the Gaussian kernel; by default the one of a geometric grid under which
      training points are likeliest, each left out in turn.
    - `layer`: the module whose input is looked at; by default the last `nn.Linear`.

    **Cost**: a forward pass, and a distance to each training point.
    **Source**: Feinman et al. 2017, arXiv:1703.00410, section 4.1. **Differs**: they tune the bandwidth by hand (1.20
    on MNIST) and combine the density with the uncertainty in a logistic regression; here each stands alone.
    """

    points: Float[Tensor, "n d"]
    classes: Int[Tensor, " n"]

    def __init__(
        self,
        network: nn.Module,
        x: Images,
        y: Int[Tensor, " n"],
        *,
        bandwidth: float | None = None,
        layer: str | None = None,
    ):
        super().__init__()
        self.layers = Layers(network, None if layer is None else [layer])
        with torch.no_grad():
            logits, (hidden,) = self.layers(x)
        points = hidden.flatten(1)
        counts = torch.bincount(y, minlength=logits.shape[1])
        if (counts < 2).any():
            few = int(counts.argmin())
            raise UnusableInput(
                f"class {few} has {int(counts[few])} training images; give at least 2 of every class"
            )
        if bandwidth is None:
            bandwidth = likeliest_bandwidth(points, y)
        if not bandwidth > 0:
            raise UnusableInput(f"the bandwidth is {bandwidth}; give a positive number")
        self.bandwidth = bandwidth
        self.register_buffer("points", points)
        self.register_buffer("classes", y)

    def forward(self, x: Images) -> Scores:
        """Minus the log-density, `[batch]`."""
        logits, (hidden,) = self.layers(x)
        same = self.classes[None] == logits.argmax(1)[:, None]
        return -log_density(hidden.flatten(1), self.points, same, self.bandwidth)


def log_density(
    at: Float[Tensor, "batch d"],
    points: Float[Tensor, "n d"],
    among: Tensor,
    bandwidth: float,
) -> Scores:
    """Log of the mean over `among` (`[batch, n]`, boolean) of Gaussian densities around the points."""
    # Not by a matrix product: far from the origin its rounding error is as large as the distances.
    squared = torch.cdist(at, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    exponents = (-squared / (2 * bandwidth**2)).masked_fill(~among, -torch.inf)
    dimensions = at.shape[1]
    norm = dimensions / 2 * math.log(2 * math.pi * bandwidth**2)
    return exponents.logsumexp(1) - among.sum(1).log() - norm


def likeliest_bandwidth(points: Float[Tensor, "n d"], classes: Int[Tensor, " n"]) -> float:
    """Of seven bandwidths around the typical nearest distance, that of the largest leave-one-out likelihood. Ours."""
    others = (classes[None] == classes[:, None]) & ~torch.eye(
        len(points), dtype=torch.bool, device=points.device
    )
    distance = torch.cdist(points, points).masked_fill(~others, torch.inf).amin(1).median()
    grid = [float(distance) * 2 ** (n / 2) for n in range(-4, 3)]
    if not grid[0] > 0:
        raise UnusableInput(
            "most training images have a twin in the hidden layer; give other ones, or a bandwidth"
        )
    return max(grid, key=lambda width: float(log_density(points, points, others, width).mean()))
