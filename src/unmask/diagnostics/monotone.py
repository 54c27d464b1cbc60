"""Whether a larger ball helps the attacker."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch

from ..attacks import PGD, Attack
from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, breaks_more, rates, survives, tried


@dataclass(frozen=True, kw_only=True)
class Monotone(Diagnostic):
    """Robust accuracy over a grid of epsilons. It can only fall, for a larger ball holds the smaller one.

    `value` is the largest rise from one epsilon to any larger one. Fails when the smaller breaks more of the
    same examples, beyond chance. `curve` holds the points (epsilon, robust accuracy).

    **Cost**: one attack per grid point.
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
        ran = tuple(
            tried(
                "attack",
                self.attack,
                classifier,
                x,
                y,
                ball,
                draws=self.draws,
                generator=streams.fork(f"point {place}"),
            )
            for place, ball in enumerate(balls)
        )
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
            tried=ran,
        )
