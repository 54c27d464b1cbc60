"""Whether the attack is any better than noise of the same size."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attacks import PGD, Attack
from ..classifier import Classifier
from ..judge import judge
from ..objectives import Objective, margin_loss
from ..randomness import Streams
from ..threat import ThreatModel
from ..types import per_example
from .base import Diagnostic, Images, Labels, Reading, breaks_more, rates, survives, tried
from .first_look import Partly, challenged


@dataclass(frozen=True, kw_only=True)
class RandomPoints(Attack):
    """The worst of several random points on the sphere: for Linf, corners of the ball.

    **Fields**
    - `tries`: points per example.
    - `objective`: what makes one worse than another.

    **Cost**: `tries` forwards.
    **Source**: Carlini et al. 2019, arXiv:1902.06705, section 4.3 (a brute-force search as a control).
    """

    tries: int = 20
    objective: Objective = margin_loss

    def run(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Images:
        streams = Streams.of(generator, len(x))
        objective = self.objective.for_goal(threat.goal)
        worst, worst_value = x.clone(), x.new_full((len(x),), -torch.inf)
        for _ in range(self.tries):
            point = threat.random_point(x, generator=streams)
            with torch.no_grad():
                value = objective(classifier(point, generator=streams), y)
            worse = value > worst_value
            worst = torch.where(per_example(worse, x), point, worst)
            worst_value = torch.where(worse, value, worst_value)
        return worst


@dataclass(frozen=True, kw_only=True)
class RandomNoise(Diagnostic):
    """The attack against the worst of a few random perturbations of the same size.

    `value` is the robust accuracy under the attack minus the accuracy under noise. Fails when noise breaks
    more of the same examples, beyond chance; noise that breaks nothing beside the attack on the first few
    (`first_look`) is not tried on the others. Says nothing (None) where neither breaks an example that is right at `x`.

    **Cost**: the attack, and `noise.tries` forwards on 11 examples, or on all.
    """

    attack: Attack = PGD(steps=20, rel_step_size=0.125)
    noise: Attack = RandomPoints()
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
        clean = judge(
            classifier, x, x, y, threat, draws=self.draws, generator=streams.fork("clean")
        ).failure_rate
        of = (classifier, x, y, threat)
        attack = tried("attack", self.attack, *of, draws=self.draws, generator=streams.fork("attack"))
        challenger = Partly("noise", self.noise, *of, draws=self.draws, streams=streams.fork("noise"))
        noise = challenged(challenger, attack)
        k, right = len(noise.x_adv), clean <= 0.5
        silent = not ((rates(attack) > 0.5) & right).any() and not ((rates(noise) > 0.5) & right[:k]).any()
        attacked, noised, clean = rates(attack)[:k], rates(noise), clean[:k]
        passed = not breaks_more(noised > 0.5, attacked > 0.5)
        return Reading(
            name="random_noise",
            passed=None if silent else passed,
            value=survives(attacked) - survives(noised),
            expected="below 0: accuracy under the attack minus that under random noise",
            explanation=(
                "Neither the attack nor noise of the same size breaks anything."
                if silent
                else f"{survives(attacked):.1%} survive the attack and {survives(noised):.1%} random noise"
                + ("." if passed else ": the attack is worse than guessing.")
            ),
            statistics={
                "clean_accuracy": survives(clean),
                "noise_accuracy": survives(noised),
                "attack_accuracy": survives(attacked),
            },
            tried=(attack, noise),
        )
