"""Whether the prediction survives when the neurons that see something of the image are strengthened."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ...errors import UnusableInput
from ...types import per_example
from .base import Detector, Images, Layers, Scores, hidden_layers


def quarters(x: Images) -> Bool[Tensor, "4 1 height width"]:
    """The four quarters of an image, as masks: attributes of images of which nobody has marked any."""
    height, width = x.shape[-2:]
    down = torch.arange(height, device=x.device)[:, None] < (height + 1) // 2
    right = torch.arange(width, device=x.device)[None] < (width + 1) // 2
    return torch.stack([a & b for a in (down, ~down) for b in (right, ~right)])[:, None]


class AttributeSteering(Detector):
    """By how much another class leads over the predicted one in the attribute-steered network (AmI).

    Witnesses of an attribute are the neurons that change when it alone is exchanged for another image's, and do not
    when everything else is: more, and less, than the median of their layer, on average over pairs. The steered network
    strengthens all witnesses and weakens the other neurons in every hidden layer. The more an image is told by
    anything else, the sooner its class is another one there.

    **Arguments**
    - `network`: the undefended network.
    - `x`: clean training images, of which each second one is exchanged with the one before.
    - `attributes`: masks over the image, `[attributes, 1, height, width]`; the quarters by default.
    - `layers`: modules whose inputs are steered; by default all hidden layers.
    - `weakening`: alpha of the paper; a neuron above the witnesses' mean loses exp(-(v - mean) / (alpha spread)).
    - `floor`, `strengthening`: epsilon and beta of the paper; a witness becomes
      (epsilon + 1 - exp(-(v - min) / (beta spread))) v, over the witnesses' least and their spread in this image.

    **Cost**: two forward passes.
    **Raises** `UnusableInput` where a layer has no witness.
    **Source**: Tao, Ma, Liu & Zhang 2018, arXiv:1810.11580, section 3. That it detects no adversary who knows it:
    Carlini 2019, arXiv:1902.02322. **Differs**: their attributes are parts of faces marked by hand. They reject where
    the two predictions differ, which is a score above zero; vote over the pairs, which leaves a small layer without a
    witness; and squeeze the feature maps as well. alpha and epsilon are theirs, beta is 60 there; ours, from 0.25, 1, 4
    and 60 by what it detects of PGD on digits.
    """

    def __init__(
        self,
        network: nn.Module,
        x: Images,
        *,
        attributes: Bool[Tensor, "attributes 1 height width"] | None = None,
        layers: Sequence[str] | None = None,
        weakening: float = 100.0,
        floor: float = 1.15,
        strengthening: float = 4.0,
    ):
        super().__init__()
        if not weakening > 0 or not strengthening > 0:
            raise UnusableInput(
                f"weakening is {weakening} and strengthening {strengthening}; give positive numbers"
            )
        self.layers = Layers(network, hidden_layers(network) if layers is None else layers)
        self.weakening, self.floor, self.strengthening = weakening, floor, strengthening
        masks = quarters(x) if attributes is None else attributes
        with torch.no_grad():
            found = [self._witnesses(x[::2][: len(x) // 2], x[1::2], mask) for mask in masks]
        self.witnesses = [torch.stack(each).any(0) for each in zip(*found, strict=True)]
        for name, seen in zip(self.layers.names, self.witnesses, strict=True):
            if not seen.any():
                raise UnusableInput(
                    f"no neuron in front of {name!r} sees an attribute; give other ones, or more images"
                )

    def _witnesses(self, base: Images, other: Images, mask: Tensor) -> list[Bool[Tensor, "*neurons"]]:
        """In each layer, the neurons that see one attribute, by the pairs of images."""
        exchanged, kept = torch.where(mask, other, base), torch.where(mask, base, other)
        hidden = zip(*(self.layers(images)[1] for images in (base, exchanged, kept)), strict=True)
        found = []
        for plain, substituted, preserved in hidden:
            moved, still = ((h - plain).abs().mean(0) for h in (substituted, preserved))
            found.append((moved > moved.median()) & (still <= still.median()))
        return found

    def steered(self, hidden: Tensor, witnesses: Bool[Tensor, "*neurons"]) -> Tensor:
        """A hidden layer, `[batch, *neurons]`, with its witnesses strengthened and the others weakened."""
        of_witnesses = hidden[:, witnesses]
        mean, least = (per_example(v, hidden) for v in (of_witnesses.mean(1), of_witnesses.amin(1)))
        spread = per_example(of_witnesses.std(1, correction=0), hidden) + 1e-6
        weaker = hidden * torch.exp(-(hidden - mean).clamp_min(0) / (self.weakening * spread))
        gain = -torch.expm1(-(hidden - least).clamp_min(0) / (self.strengthening * spread))
        return torch.where(witnesses, (self.floor + gain) * hidden, weaker)

    def forward(self, x: Images) -> Scores:
        """The lead of the nearest other class, `[batch]`: above zero where the steered network says another."""
        predicted = self.layers.network(x.clone()).argmax(1, keepdim=True)
        logits = self._through(x)
        own = logits.gather(1, predicted)[:, 0]
        return logits.scatter(1, predicted, -torch.inf).amax(1) - own

    def _through(self, x: Images) -> Float[Tensor, "batch classes"]:
        """Logits of the steered network."""
        modules = dict(self.layers.network.named_modules())

        def steer(name: str, witnesses: Tensor) -> torch.utils.hooks.RemovableHandle:
            return modules[name].register_forward_pre_hook(
                lambda _, given: (self.steered(given[0], witnesses), *given[1:])
            )

        handles = [steer(*each) for each in zip(self.layers.names, self.witnesses, strict=True)]
        try:
            return self.layers.network(x)
        finally:
            for handle in handles:
                handle.remove()
