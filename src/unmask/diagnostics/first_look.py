"""A control that looks at a few examples first, and at the rest only where these give cause."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from ..attacks import Attack
from ..classifier import Classifier
from ..judge import judge
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Images, Labels, Tried, breaks_more, rates, tried

# What a first look must not miss: a fault that shows on this share of the examples, with this probability. On 32
# examples the sign test itself notices such a fault with 0.94. Ours.
SHARE, NOTICED = 0.25, 0.95


def first_look(share: float = SHARE, noticed: float = NOTICED) -> int:
    """The smallest number of examples of which one at least shows a fault of that share, with that probability.

    >>> first_look(), first_look(share=0.1)
    (11, 29)
    """
    return math.ceil(math.log(1 - noticed) / math.log(1 - share))


class Partly:
    """An attack that runs on some of the examples at a time; the others keep their images.

    **Arguments**
    - `name`, `attack`, `draws`: as of `tried`.
    """

    def __init__(
        self,
        name: str,
        attack: Attack,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        draws: int,
        streams: Streams,
    ):
        self.name, self.attack, self.classifier, self.streams = name, attack, classifier, streams
        self.x, self.y, self.threat, self.draws = x, y, threat, draws
        self.points, self.failures = x.clone(), torch.zeros(len(x), device=x.device)
        self.attacked = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def on(self, chosen: Bool[Tensor, " batch"]) -> None:
        """Attacks the chosen, as far as they have not been."""
        rows = (chosen & ~self.attacked).nonzero()[:, 0]
        if len(rows):
            of = (self.classifier, self.x[rows], self.y[rows], self.threat)
            seen = tried(self.name, self.attack, *of, draws=self.draws, generator=self.streams[rows])
            self.points[rows], self.failures[rows], self.attacked[rows] = seen.x_adv, rates(seen), True

    def first(self, k: int) -> Tried:
        """What came of the first `k` examples; the images of those that were not attacked are judged as they are."""
        rest = (~self.attacked[:k]).nonzero()[:, 0]
        if len(rest):
            x, streams = self.x[rest], self.streams[rest].fork("as it came")
            seen = judge(
                self.classifier, x, x, self.y[rest], self.threat, draws=self.draws, generator=streams
            )
            self.failures[rest] = seen.failure_rate
        points, failures = self.points[:k], self.failures[:k]
        return Tried(by=self.name, threat=self.threat, x_adv=points, failure_rate=failures, draws=self.draws)


def first(x: Images) -> Bool[Tensor, " batch"]:
    """Those at which a first look is taken."""
    return torch.arange(len(x), device=x.device) < first_look()


def challenged(challenger: Partly, reference: Tried, *, left_only: bool = False) -> Tried:
    """Whether an attack breaks what `reference` left: on the first few, and on all if it does so on one of these.

    Returns what it tried, on the first few examples only where it ended there.

    **Arguments**
    - `reference`: what another attack came to on all of the examples.
    - `left_only`: attack only what the reference left, of the first few and then of all. What the reference broke
      can only take away from what is found so: it is attacked where there is enough to take from.

    **Cost**: the attack on at most `first_look()` examples; where it breaks what was left, on all.
    """
    few, left = first(challenger.x), rates(reference) <= 0.5
    challenger.on(few & left if left_only else few)
    if not ((challenger.failures > 0.5) & left).any():
        return challenger.first(int(few.sum()))
    every = torch.ones_like(few)
    challenger.on(left if left_only else every)
    if breaks_more((challenger.failures > 0.5) & left, ~every):
        challenger.on(every)
    return challenger.first(len(every))
