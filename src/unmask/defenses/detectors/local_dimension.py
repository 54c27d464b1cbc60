"""Local intrinsic dimensionality, in every hidden layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...errors import UnusableInput
from .base import Detector, Images, Layers, Scores, hidden_layers
from .combination import Combination


class LocalDimension(Detector):
    """How fast the neighbours of an input grow in number with the distance, in each hidden layer.

    **Arguments**
    - `network`: the undefended network.
    - `x`: clean training images; the first half is the reference (the paper takes 100), the second standardises.
    - `x_adv`: adversarial images to weigh the layers by; without them all count alike.
    - `neighbours`: how many of the reference count (the paper's k).
    - `layers`: modules whose inputs are looked at; by default all hidden layers.

    **Cost**: a forward pass, and in each layer a distance to each reference image.
    **Source**: Ma et al. 2018, arXiv:1801.02613, equation 4. **Differs**: the reference is the same for every input,
    where theirs is the rest of a minibatch; noisy images do not join the clean ones in the regression.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Images,
        *,
        x_adv: Images | None = None,
        neighbours: int = 20,
        layers: Sequence[str] | None = None,
    ):
        super().__init__()
        # Half of the images are the reference; how the other half looks from there standardises the layers.
        if not 2 <= neighbours <= len(x) // 2:
            raise UnusableInput(
                f"{neighbours} neighbours of {len(x)} images; give at least 2, and twice as many images"
            )
        self.neighbours = neighbours
        self.layers = Layers(network, hidden_layers(network) if layers is None else layers)
        with torch.no_grad():
            hidden = self.layers(x[: len(x) // 2])[1]
        self.references = nn.ParameterList(nn.Parameter(h.flatten(1), requires_grad=False) for h in hidden)
        with torch.no_grad():
            clean = self.each(x[len(x) // 2 :])
            self.combination = Combination(clean, None if x_adv is None else self.each(x_adv))

    def each(self, x: Images) -> Float[Tensor, "batch layers"]:
        """The dimension in each layer."""
        hidden = self.layers(x)[1]
        found = [
            dimension(h.flatten(1), reference, self.neighbours)
            for h, reference in zip(hidden, self.references, strict=True)
        ]
        return torch.stack(found, 1)

    def forward(self, x: Images) -> Scores:
        """The weighted sum over the layers, `[batch]`."""
        return self.combination(self.each(x))


def dimension(points: Float[Tensor, "batch d"], reference: Float[Tensor, "n d"], neighbours: int) -> Scores:
    """Maximum-likelihood estimate of the local intrinsic dimensionality, from distances to the nearest references."""
    distances = torch.cdist(points, reference, compute_mode="donot_use_mm_for_euclid_dist")
    nearest = distances.topk(neighbours, dim=1, largest=False).values.clamp_min(1e-12)
    ratios = (nearest / nearest[:, -1:]).log().mean(1)
    return -1 / ratios.clamp_max(-1e-12)
