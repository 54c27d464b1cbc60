"""High-confidence adversarial examples: the more surely wrong, the less they look like it to a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ..classifier import Classifier
from ..judge import fooled
from ..objectives import Confident, margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Attack, Cost, GradientAttack, Images, Labels
from .batch import Batch, Incumbent
from .carlini_wagner import CarliniWagner
from .pgd import PGD


@dataclass(frozen=True, kw_only=True)
class ConfidenceSweep(Attack):
    """Runs an attack at one confidence after another, and keeps the first point that fools all there is to fool.

    The attack is not told of the detector beyond being asked whether it objects: it only sees to it that the wrong
    class leads by kappa. Returns, per example, the first point that is misclassified and not rejected, else that of
    the last confidence.

    **Fields**
    - `inner`: a gradient attack, for instance `PGD`; `CarliniWagner` under L2. Its objective is exchanged for the
      margin loss up to kappa.
    - `confidences`: the kappas, in units of the logits.

    **Cost**: at most `len(confidences)` runs of `inner`, and as many forwards more.
    **Source**: Carlini & Wagner 2017, arXiv:1705.07263, and their kappa of arXiv:1608.04644, section 5.
    """

    inner: GradientAttack = PGD(steps=40)
    confidences: Sequence[float] = (0.0, 2.0, 5.0, 10.0, 20.0, 40.0)

    def cost(self, classes: int) -> Cost | None:
        each, times = self.inner.cost(classes), len(self.confidences)
        return each and Cost(forwards=times * (each.forwards + 1), estimates=times * each.estimates)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        x = x.detach()
        whole = Batch.whole(x, y, generator, margin_loss)
        best = Incumbent(x)
        for number, kappa in enumerate(self.confidences):
            left = best.unfooled()
            if not len(left):
                break
            batch = whole.take(left)
            streams = batch.streams.fork(f"kappa {number}")
            x_adv = self._at(kappa).run(classifier, batch.x, batch.y, threat, generator=streams)
            with torch.no_grad():
                outputs = classifier(x_adv, generator=streams.fork("asked"))
            won = fooled(outputs, batch.y, threat)
            # A later confidence takes the place of an earlier one.
            value = torch.full((len(left),), float(number), dtype=torch.float64, device=x.device)
            best.offer(left, x_adv, value.masked_fill(won, torch.inf))
        return threat.settle(best.x_adv, x)

    def _at(self, kappa: float) -> GradientAttack:
        if isinstance(self.inner, CarliniWagner):
            return replace(self.inner, objective=margin_loss, confidence=kappa)
        return replace(self.inner, objective=Confident(margin_loss, kappa))
