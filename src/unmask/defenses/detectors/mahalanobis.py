"""Mahalanobis distance to the nearest class, in every hidden layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .base import Detector, Images, Layers, Scores, hidden_layers
from .combination import Combination


class Mahalanobis(Detector):
    """Squared Mahalanobis distance to the nearest class mean, under one covariance for all classes, over the layers.

    **Arguments**
    - `network`: the undefended network.
    - `x`, `y`: clean training images and their labels, some of every class.
    - `x_adv`: adversarial images to weigh the layers by; without them all count alike.
    - `layers`: modules whose inputs are looked at, each averaged over space; by default all hidden layers.
    - `ridge`: added to the covariance's diagonal, as a share of its mean, for units that never fire on clean images.
      Ours; with 0 they are left out, as in the paper's code.

    **Cost**: a forward pass.
    **Source**: Lee et al. 2018, arXiv:1807.03888, section 2. **Differs**: without the small step that raises the score
    before it is read, which the paper takes for images from another distribution.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Images,
        y: Int[Tensor, " n"],
        *,
        x_adv: Images | None = None,
        layers: Sequence[str] | None = None,
        ridge: float = 1e-4,
    ):
        super().__init__()
        self.layers = Layers(network, hidden_layers(network) if layers is None else layers)
        with torch.no_grad():
            hidden = [averaged(h) for h in self.layers(x)[1]]
        self.means = nn.ParameterList()
        self.precisions = nn.ParameterList()
        for h in hidden:
            mean, precision = tied_gaussian(h, y, ridge)
            self.means.append(nn.Parameter(mean, requires_grad=False))
            self.precisions.append(nn.Parameter(precision, requires_grad=False))
        with torch.no_grad():
            clean, adversarial = self.each(x), None if x_adv is None else self.each(x_adv)
        self.combination = Combination(clean, adversarial)

    def each(self, x: Images) -> Float[Tensor, "batch layers"]:
        """The squared distance to the nearest class in each layer."""
        hidden = self.layers(x)[1]
        distances = [
            nearest(averaged(h), mean, precision)
            for h, mean, precision in zip(hidden, self.means, self.precisions, strict=True)
        ]
        return torch.stack(distances, 1)

    def forward(self, x: Images) -> Scores:
        """The weighted sum over the layers, `[batch]`."""
        return self.combination(self.each(x))


def averaged(hidden: Tensor) -> Float[Tensor, "batch channels"]:
    """Averaged over space, as in the paper; what has no space stays as it is."""
    return hidden.flatten(2).mean(2) if hidden.ndim > 2 else hidden


def tied_gaussian(
    points: Float[Tensor, "n d"], y: Int[Tensor, " n"], ridge: float
) -> tuple[Float[Tensor, "classes d"], Float[Tensor, "d d"]]:
    """Mean of each class, and the pseudo-inverse of the covariance around them, computed in float64."""
    exact = points.double()
    means = torch.stack([exact[y == c].mean(0) for c in y.unique()])
    place = torch.unique(y, return_inverse=True)[1]
    around = exact - means[place]
    covariance = around.T @ around / len(exact)
    covariance.diagonal().add_(ridge * covariance.diagonal().mean().clamp_min(1e-12))
    return means.to(points), torch.linalg.pinv(covariance, hermitian=True).to(points)


def nearest(
    points: Float[Tensor, "batch d"], means: Float[Tensor, "classes d"], precision: Float[Tensor, "d d"]
) -> Scores:
    """Squared Mahalanobis distance to the nearest of the means."""
    around = points[:, None] - means[None]
    return torch.einsum("bcd,de,bce->bc", around, precision, around).amin(1)
