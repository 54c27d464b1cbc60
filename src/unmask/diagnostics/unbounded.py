"""Whether an attack that may do anything always succeeds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..attacks import PGD, Attack
from ..classifier import Classifier
from ..randomness import Streams
from ..threat import NormBall, ThreatModel
from .base import Diagnostic, Images, Labels, Reading, rates, survives, tried


def whole_box(threat: ThreatModel, x: Images) -> ThreatModel:
    """The same adversary with a radius that covers the box around any image, wherever its own radii differ.

    >>> from unmask.threat import L2
    >>> whole_box(L2(epsilon=0.5), torch.zeros(1, 1, 4, 4)).epsilon
    4.0
    """
    if isinstance(threat, NormBall):
        threat = replace(threat, weights=None)
    return replace(threat, epsilon=threat.widest(x.shape[1:]))


@dataclass(frozen=True, kw_only=True)
class Unbounded(Diagnostic):
    """The attack with the whole box to move in. Whatever survives, survives because the attack is broken.

    `value` is the accuracy that is left. Passes at chance (one over the number of classes, at most `most`): a
    network that ignores its input keeps that much.

    **Cost**: one attack.
    **Source**: Athalye et al. 2018, arXiv:1802.00420, section 3.1; Carlini et al. 2019, arXiv:1902.06705,
    section 4.
    """

    attack: Attack = PGD(steps=40)
    most: float = 0.1
    draws: int = 4

    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        streams = Streams.of(generator, len(x))
        with torch.no_grad():
            classes = classifier(x[:1], generator=streams[:1].fork("classes")).logits.shape[1]
        everywhere = whole_box(threat, x)
        ran = tried("attack", self.attack, classifier, x, y, everywhere, draws=self.draws, generator=streams)
        left = survives(rates(ran))
        bound = min(self.most, 1 / classes)
        passed = left <= bound
        return Reading(
            name="unbounded",
            passed=passed,
            value=left,
            expected=f"at most {bound:.2f}: accuracy when the attack may use the whole box",
            explanation=(
                f"With the whole box to move in, the attack leaves {left:.1%}"
                + ("." if passed else ", although no network resists that: the attack does not work here.")
            ),
            statistics={"epsilon": everywhere.epsilon},
            decisive=True,
            tried=(ran,),
        )
