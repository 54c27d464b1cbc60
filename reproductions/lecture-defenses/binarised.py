"""What is left to an attacker of a binarised image: pixels that can cross one half."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unmask.attacks import Attack
from unmask.classifier import Classifier
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.threat import ThreatModel


def within_reach(x: Tensor, epsilon: float) -> Tensor:
    """Pixels that can be moved across 0.5."""
    return ((x - epsilon).clamp_min(0) <= 0.5) & ((x + epsilon).clamp_max(1) > 0.5)


@dataclass(frozen=True, kw_only=True)
class GreedyFlips(Attack):
    """Flips, one by one, the pixel within reach that helps most, whether it helps or not; keeps the best state.

    **Fields**
    - `flips`: at most so many.

    **Cost**: a forward for each pixel within reach and each flip.
    """

    flips: int = 30

    def run(
        self,
        classifier: Classifier,
        x: Tensor,
        y: Tensor,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Tensor:
        """As `Attack.run`."""
        streams = Streams.of(generator, len(x))
        x_adv = x.clone()
        with torch.no_grad():
            for i in range(len(x)):
                x_adv[i] = self._one(classifier, x[i : i + 1], y[i : i + 1], threat.epsilon, streams)
        return threat.settle(x_adv, x)

    def _one(self, classifier: Classifier, x: Tensor, y: Tensor, epsilon: float, streams: Streams) -> Tensor:
        places = within_reach(x, epsilon).flatten().nonzero()[:, 0]
        other = torch.where(x > 0.5, x - epsilon, x + epsilon).clamp(0, 1).flatten()
        now, best, best_value = x.flatten().clone(), x, -torch.inf
        used = torch.zeros(len(places), dtype=torch.bool)
        for _ in range(min(self.flips, len(places))):
            left = (~used).nonzero()[:, 0]
            tried = now.repeat(len(left), 1)
            tried[torch.arange(len(left)), places[left]] = other[places[left]]
            outputs = classifier(tried.view(-1, *x.shape[1:]), generator=streams)
            value = margin_loss(outputs, y.expand(len(left)))
            first = int(value.argmax())
            used[left[first]] = True
            now = tried[first]
            if float(value[first]) > best_value:
                best, best_value = now.view_as(x).clone(), float(value[first])
            if best_value > 0:
                break
        return best[0]
