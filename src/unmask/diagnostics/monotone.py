"""Whether a larger ball helps the attacker."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch

from ..attacks import PGD, Attack
from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, Tried, breaks_more, rates, survives
from .first_look import Partly, first


@dataclass(frozen=True, kw_only=True)
class Monotone(Diagnostic):
    """Robust accuracy over a grid of epsilons. It can only fall, for a larger ball holds the smaller one.

    `value` is the largest rise from one epsilon to any larger one. Fails when the smaller breaks more of the
    same examples, beyond chance. `curve` holds the points (epsilon, robust accuracy).

    From the claimed epsilon on every example is attacked. In a smaller ball those are that the next larger one broke,
    and the first few of all (`first_look`); if one of these falls that the larger ball left, all. Whoever is not
    attacked is judged as it came, for the same attack with more room did not break it.

    **Cost**: one attack per grid point; below the claimed epsilon on part of the examples.
    """

    attack: Attack = PGD(steps=20, rel_step_size=0.125)
    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 1.5, 2.0)
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
        # A count stays whole, so that two factors may come to the same radius.
        grid = {threat.scaled(factor): factor for factor in sorted(self.factors, reverse=True)}
        balls = sorted(grid, key=lambda ball: ball.epsilon)
        ran: list[Tried] = []
        for place in reversed(range(len(balls))):
            streams_here = streams.fork(f"point {place}")
            here = Partly(
                "attack", self.attack, classifier, x, y, balls[place], draws=self.draws, streams=streams_here
            )
            if ran and balls[place].epsilon < threat.epsilon:
                larger = rates(ran[0])
                here.on((larger > 0) | first(x))
                every = bool(((here.failures > 0.5) & (larger <= 0.5)).any())
            else:
                every = True
            here.on(torch.full_like(first(x), every))
            ran.insert(0, here.first(len(x)))
        failures = [rates(point) for point in ran]
        accuracies = [survives(f) for f in failures]
        pairs = list(combinations(failures, 2))
        rise = max((survives(larger) - survives(smaller) for smaller, larger in pairs), default=0.0)
        # Each of the pairs could fail by chance, so the level is divided among them (Bonferroni).
        fell = [breaks_more(s > 0.5, g > 0.5, level=0.05 / len(pairs)) for s, g in pairs]
        passed = not any(fell)
        return Reading(
            name="monotone",
            passed=passed,
            value=rise,
            expected="at most 0, up to chance: rise of the accuracy from one epsilon to a larger one",
            explanation=(
                "Accuracy falls as epsilon grows, as it must."
                if passed
                else f"Accuracy rises by {rise:.1%} as epsilon grows, which no network can do: the attack "
                "misses "
                "what it found in a smaller ball."
            ),
            statistics={f"accuracy_at_{grid[ball]:g}": a for ball, a in zip(balls, accuracies, strict=True)},
            curve=tuple((ball.epsilon, a) for ball, a in zip(balls, accuracies, strict=True)),
            tried=tuple(ran),
        )
