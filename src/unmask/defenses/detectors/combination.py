"""One suspicion out of those of several layers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .base import Scores


class Combination(nn.Module):
    """A weighted sum of the layers' scores, each standardised on clean images.

    **Arguments**
    - `clean`: `[n, layers]`, the scores of clean images.
    - `adversarial`: `[m, layers]`, those of adversarial images. The weights are then the coefficients of the logistic
      regression that tells the two apart; else all are equal.
    """

    mean: Float[Tensor, " layers"]
    spread: Float[Tensor, " layers"]
    weights: Float[Tensor, " layers"]

    def __init__(
        self, clean: Float[Tensor, "n layers"], adversarial: Float[Tensor, "m layers"] | None = None
    ):
        super().__init__()
        mean, spread = clean.mean(0), clean.std(0).clamp_min(1e-12)
        weights = torch.ones_like(mean) / len(mean)
        if adversarial is not None:
            from sklearn.linear_model import LogisticRegression  # here, for it takes a second to import

            both = (torch.cat([clean, adversarial]) - mean) / spread
            label = torch.cat([torch.zeros(len(clean)), torch.ones(len(adversarial))])
            fitted = LogisticRegression(max_iter=1000).fit(both.cpu().numpy(), label.numpy())
            weights = torch.from_numpy(fitted.coef_[0]).to(mean)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)
        self.register_buffer("weights", weights)

    def forward(self, scores: Float[Tensor, "batch layers"]) -> Scores:
        """The weighted sum, `[batch]`."""
        return ((scores - self.mean) / self.spread) @ self.weights
