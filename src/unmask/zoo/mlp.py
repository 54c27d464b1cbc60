"""A multi-layer perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn


class MLP(nn.Module):
    """Flatten, then linear layers with an activation between each two.

    **Arguments**
    - `widths`: pixels, hidden widths, classes; `(784, 256, 256, 10)` is the usual MNIST one.
    - `activation`: builds the layer between two linear ones.
    - `normalize`: a layer applied to the image first, such as `Normalize`, or None.

    >>> import torch
    >>> MLP((64, 32, 10))(torch.rand(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        widths: Sequence[int],
        *,
        activation: Callable[[], nn.Module] = nn.ReLU,
        normalize: nn.Module | None = None,
    ):
        super().__init__()
        layers: list[nn.Module] = [] if normalize is None else [normalize]
        layers += [nn.Flatten(), nn.Linear(widths[0], widths[1])]
        for wide_in, wide_out in pairwise(widths[1:]):
            layers += [activation(), nn.Linear(wide_in, wide_out)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch classes"]:
        """Logits of images in [0, 1]."""
        return self.layers(x)
