"""How far the map that explains a prediction lies from those that explain it on clean images."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import UnusableInput
from .base import Detector, Images, Scores
from .mahalanobis import tied_gaussian

Maps = Float[Tensor, "batch features"]


def leave_one_out(network: nn.Module, x: Images, labels: Int[Tensor, " batch"]) -> Maps:
    """By how much the logit of a class falls where one pixel, all its channels together, is black.

    **Cost**: a forward pass for each pixel, and one.
    """
    pixels = x.shape[-2] * x.shape[-1]
    without = ~torch.eye(pixels, dtype=torch.bool, device=x.device).view(pixels, 1, *x.shape[-2:])
    logits = network((x[:, None] * without).flatten(0, 1)).unflatten(0, (len(x), pixels))
    chosen = labels.view(-1, 1, 1).expand(-1, pixels, 1)
    return network(x.clone()).gather(1, labels[:, None]) - logits.gather(2, chosen)[..., 0]


def gradient_times_input(network: nn.Module, x: Images, labels: Int[Tensor, " batch"]) -> Maps:
    """Each element times the slope of the logit of a class along it.

    **Cost**: a forward and a backward pass.
    """
    with torch.inference_mode(False), torch.enable_grad():  # the map is a gradient, whoever asks
        at = x if x.requires_grad else x.detach().clone().requires_grad_()
        own = network(at).gather(1, labels.clone()[:, None]).sum()
        (slope,) = torch.autograd.grad(own, at, create_graph=x.requires_grad)
        found = (slope * at).flatten(1)
    return found if x.requires_grad else found.detach()


ATTRIBUTIONS = {"leave one out": leave_one_out, "gradient": gradient_times_input}


class AttributionMap(Detector):
    """Squared Mahalanobis distance of the attribution map to those of clean images of the predicted class.

    **Arguments**
    - `network`: the undefended network.
    - `x`: clean training images, some that are predicted to be of every class.
    - `attribution`: what explains the predicted logit: `leave one out`, or `gradient`, which is times the input.
    - `ridge`: added to the covariance's diagonal, as a share of its mean, for pixels that are the same everywhere;
      ours.

    **Cost**: that of the attribution, and a forward pass.
    **Raises** `UnusableInput` for another attribution, and where a class is never predicted.
    **Source**: Yang et al. 2020, arXiv:1906.03499 (leave one out: thresholds the spread of the map); Zhang, Yang & Ye
    2018, arXiv:1803.08773 (a classifier of saliency maps). **Differs**: the whole map under one Gaussian a class, as
    Lee et al. 2018, arXiv:1807.03888, have it for hidden layers; nothing adversarial is needed to make it.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Images,
        *,
        attribution: Literal["leave one out", "gradient"] = "leave one out",
        ridge: float = 1e-3,
    ):
        super().__init__()
        if attribution not in ATTRIBUTIONS:
            raise UnusableInput(f"attribution is {attribution!r}; choose one of {', '.join(ATTRIBUTIONS)}")
        self.network, self.explain = network, ATTRIBUTIONS[attribution]
        with torch.no_grad():
            logits = torch.cat([network(part) for part in x.split(100)])
            maps = torch.cat([self.explain(network, part, p) for part, p in _pairs(x, logits.argmax(1))])
        never = sorted(set(range(logits.shape[1])) - set(logits.argmax(1).tolist()))
        if never:
            raise UnusableInput(
                f"none of {len(x)} images is predicted to be of class {never[0]}; give more, of every class"
            )
        mean, precision = tied_gaussian(maps, logits.argmax(1), ridge)
        self.mean, self.precision = (nn.Parameter(t, requires_grad=False) for t in (mean, precision))

    def forward(self, x: Images) -> Scores:
        """The distance, `[batch]`."""
        predicted = self.network(x.clone()).argmax(1)
        away = self.explain(self.network, x, predicted) - self.mean[predicted]
        return ((away @ self.precision) * away).sum(1)


def _pairs(x: Images, labels: Tensor) -> zip[tuple[Tensor, Tensor]]:
    return zip(x.split(100), labels.split(100), strict=True)
