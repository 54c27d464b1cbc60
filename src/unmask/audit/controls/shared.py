"""One run of the controls' attack, which all controls share that ask about it in the claimed ball."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...attacks import Attack
from ...attacks.base import Images, Labels
from ...classifier import Classifier
from ...diagnostics import Diagnostic, Reading, Tried
from ...randomness import Streams
from ...threat import ThreatModel
from ..campaign.standing import Standing
from ..context import Subject
from .check import Check
from .known import Done
from .run import run_controls

ATTACK = Check("attack of the controls")  # names its random numbers and its entry in the journal


@dataclass(frozen=True, kw_only=True)
class Ran(Diagnostic):
    """No question yet: only what an attack comes to.

    **Cost**: the attack.
    """

    attack: Attack

    def examine(
        self,
        classifier: Classifier,
        x: Images,
        y: Labels,
        threat: ThreatModel,
        *,
        generator: torch.Generator | Streams,
    ) -> Reading:
        points = self.attack.run(classifier, x, y, threat, generator=generator)
        found = Tried(by="attack", threat=threat, x_adv=threat.settle(points, x))
        return Reading(
            name="ran", passed=None, value=None, expected="", explanation="It ran.", tried=(found,)
        )


def once(subject: Subject, standing: Standing, attack: Attack, tag: str) -> Attack:
    """The attack, run on the examples of the controls already; itself where it cannot run. In every process."""
    ran = subject.processes.first(
        lambda: run_controls(subject, standing, {ATTACK: Ran(attack=attack)}, tag)[0].reading
    )
    if ran is None or not ran.tried:
        return attack
    points = ran.tried[0].x_adv.to(subject.device)
    x = subject.x[: len(points)]
    return Done(attack=attack, network=subject.classifier.network, threat=subject.threat, x=x, points=points)
