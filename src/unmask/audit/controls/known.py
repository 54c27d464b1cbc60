"""Attacks that hand out what has been found already."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...attacks import Attack
from ...attacks.base import Images, Labels
from ...classifier import Classifier
from ...judge import judge
from ...randomness import Streams
from ...threat import ThreatModel
from ...worst_case import WorstCase


@dataclass(frozen=True, kw_only=True, eq=False)
class Done(Attack):
    """An attack that has run on some images of a network in one ball: there it hands out what it found.

    **Fields**
    - `attack`: it runs wherever it is asked anything else.
    - `network`, `x`, `threat`: where it has run.
    - `points`: what it found; shape of `x`.

    **Cost**: nothing on the first of those images in that ball; else that of the attack.
    """

    attack: Attack
    network: object
    threat: ThreatModel
    x: Tensor = field(repr=False)
    points: Tensor = field(repr=False)

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        asked = classifier.network is self.network and threat == self.threat
        if asked and len(x) <= len(self.x) and torch.equal(x, self.x[: len(x)]):
            return self.points[: len(x)].clone()
        return self.attack.run(classifier, x, y, threat, generator=generator)


@dataclass(frozen=True, kw_only=True, eq=False)
class Known(Attack):
    """Points that somebody has found already, one for each of the examples, in their order.

    **Cost**: nothing.
    """

    points: Tensor

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        return self.points[: len(x)].clone()


@dataclass(frozen=True, kw_only=True, eq=False)
class WorstOf(Attack):
    """Several attacks; of each example the worst of their points, as the judge sees them.

    **Cost**: that of the attacks, and one judgement for each.
    """

    attacks: tuple[Attack, ...]

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        streams, worst = Streams.of(generator, len(x)), WorstCase(x)
        everyone = torch.arange(len(x), device=x.device)
        for n, attack in enumerate(self.attacks):
            own = streams.fork(f"attack {n}")
            x_adv = attack.run(classifier, x, y, threat, generator=own)
            seen = judge(classifier, x_adv, x, y, threat, generator=own.fork("judge"))
            worst.offer(everyone, x_adv, seen.failure_rate, seen.margin_loss)
        return worst.x_adv
