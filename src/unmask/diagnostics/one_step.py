"""Whether more steps make an attack weaker."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..attacks import FGSM, PGD, Attack
from ..classifier import Classifier
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, breaks_more, rates, survives, tried


@dataclass(frozen=True, kw_only=True)
class OneStep(Diagnostic):
    """One step against many. Many that break fewer examples are walking over a broken gradient.

    `value` is the robust accuracy under many steps minus that under one. Fails when one step breaks more of
    the same examples, beyond chance.

    **Cost**: both attacks.
    **Source**: Athalye et al. 2018, arXiv:1802.00420, section 3.1.
    """

    one: Attack = FGSM()
    many: Attack = PGD(steps=20, rel_step_size=0.125)
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
        ran = tuple(
            tried(name, a, classifier, x, y, threat, draws=self.draws, generator=streams.fork(name))
            for a, name in ((self.one, "one"), (self.many, "many"))
        )
        one, many = map(rates, ran)
        passed = not breaks_more(one > 0.5, many > 0.5)
        return Reading(
            name="one_step",
            passed=passed,
            value=survives(many) - survives(one),
            expected="at most 0, up to chance: accuracy under many steps minus that under one",
            explanation=(
                f"{survives(many):.1%} survive many steps and {survives(one):.1%} a single one"
                + ("." if passed else ": going on makes the attack weaker, so its gradient leads it astray.")
            ),
            statistics={"one_step_accuracy": survives(one), "many_steps_accuracy": survives(many)},
            tried=ran,
        )
