"""How much dropout at test time changes a prediction."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import Unsupported, UnusableInput
from .base import Detector, Images, Scores, weighted


class BayesianUncertainty(Detector):
    """Variance of the predicted probabilities, summed over the classes, over passes with dropout. Random.

    **Arguments**
    - `network`: the undefended network. Its own `nn.Dropout` layers are turned on; where it has none, what goes into
      each linear layer but the first is dropped.
    - `passes`: how many are averaged over.
    - `rate`: share that is dropped where the network has no dropout of its own.

    **Cost**: `passes` forward passes.
    **Source**: Feinman et al. 2017, arXiv:1703.00410, section 4.2 (after Gal & Ghahramani 2016).
    """

    def __init__(self, network: nn.Module, *, passes: int = 30, rate: float = 0.5):
        super().__init__()
        if passes < 2:
            raise UnusableInput(f"passes is {passes}; a variance needs at least 2")
        if not 0 < rate < 1:
            raise UnusableInput(f"rate is {rate}; give a share between 0 and 1")
        modules = dict(network.named_modules())
        own = weighted(network, nn.Dropout)
        self.rates = {name: float(modules[name].p) for name in own}  # type: ignore[arg-type]
        if not own:
            self.rates = dict.fromkeys(weighted(network, (nn.Conv2d, nn.Linear))[1:], rate)
            self.rates = {name: p for name, p in self.rates.items() if isinstance(modules[name], nn.Linear)}
        if not self.rates:
            raise Unsupported(
                "the network has neither dropout nor a hidden linear layer; nothing could be dropped"
            )
        self.network, self.passes = network, passes

    def forward(self, x: Images) -> Scores:
        """The variance, `[batch]`."""
        probabilities = self.dropped(x).softmax(2)
        return probabilities.square().sum(2).mean(0) - probabilities.mean(0).square().sum(1)

    def dropped(self, x: Images) -> Tensor:
        """Logits of each pass, `[passes, batch, classes]`."""
        modules = dict(self.network.named_modules())

        def drop(name: str, rate: float) -> torch.utils.hooks.RemovableHandle:
            return modules[name].register_forward_pre_hook(
                lambda _, given: (F.dropout(given[0], rate, training=True), *given[1:])
            )

        handles = [drop(name, rate) for name, rate in self.rates.items()]
        try:
            return self.network(x.repeat(self.passes, *[1] * (x.ndim - 1))).reshape(self.passes, len(x), -1)
        finally:
            for handle in handles:
                handle.remove()
