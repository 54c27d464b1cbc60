"""Transfer: what fools the surrogate often fools the defence."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..classifier import Classifier
from ..errors import Unsupported
from ..randomness import Streams
from ..threat import ThreatModel
from .apgd import APGD
from .base import Attack, Cost, Images, Labels


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Attacks the classifier's surrogate, white box, and hands over the result.

    **Fields**
    - `inner`: the attack on the surrogate. Without early stop by default: a point that barely fools the
      surrogate is the one least likely to transfer.

    **Cost**: that of `inner`, spent on the surrogate; the target itself is not queried.
    **Raises** `Unsupported` when the classifier has no surrogate.
    **Source**: Papernot et al. 2016, arXiv:1605.07277.
    """

    inner: Attack = APGD(early_stop=False)

    def describe(self) -> str:
        return f"{self.inner.describe()} on the surrogate, transferred"

    def cost(self, classes: int) -> Cost | None:
        return self.inner.cost(classes)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        if classifier.surrogate is None:
            raise Unsupported(
                "`Transfer` needs a surrogate and this classifier has none; "
                "use `classifier.with_surrogate(f)`, or `Substitute`, which learns one"
            )
        surrogate = classifier.replace(network=classifier.surrogate, surrogate=None)
        return self.inner.run(surrogate, x, y, threat, generator=generator)
