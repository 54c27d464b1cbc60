"""Whether an attack that may change nothing changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..attacks import PGD, Attack
from ..classifier import Classifier
from ..judge import judge
from ..randomness import Streams
from ..threat import ThreatModel
from .base import Diagnostic, Images, Labels, Reading, Tried


@dataclass(frozen=True, kw_only=True)
class NullAttack(Diagnostic):
    """The attack at epsilon 0, scored exactly as the real one.

    Accuracy must stay the clean accuracy: exactly so for a network whose answers do not vary, and within
    `errors` standard errors of the two estimates otherwise. A difference is a defect of the evaluation: a
    network that remembers earlier queries, an attack that leaves the ball, or scoring on a lucky draw.
    `value` is the difference. `any_draw_accuracy` is what the last of these reports: an example counts as
    broken if *one* of the draws fails.

    **Cost**: one attack, `2 * draws` judgements.
    """

    attack: Attack = PGD(steps=10)
    draws: int = 16
    errors: float = 4.0

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
        nothing = replace(threat, epsilon=0.0)
        before = judge(classifier, x, x, y, nothing, draws=self.draws, generator=streams.fork("clean"))
        x_adv = self.attack.run(classifier, x, y, nothing, generator=streams.fork("attack"))
        after = judge(classifier, x_adv, x, y, nothing, draws=self.draws, generator=streams.fork("judge"))
        difference = float((before.failure_rate - after.failure_rate).mean())
        draws = 1 if classifier.deterministic else self.draws
        rate = (before.failure_rate + after.failure_rate) / 2
        allowed = self.errors * float((2 * rate * (1 - rate) / draws).sum().sqrt()) / len(x)
        moved = 1.0 - float(after.allowed.double().mean())
        # An example that went from never failing to always failing has the variance of a coin in `rate`,
        # although no randomness was seen in it; networks that do not vary are held to exact equality.
        varies = bool(((before.failure_rate > 0) & (before.failure_rate < 1)).any())
        passed = moved == 0 and abs(difference) <= (allowed if varies else 0)
        return Reading(
            name="null_attack",
            passed=passed,
            value=difference,
            expected=f"0 within {allowed if varies else 0:.3f}: accuracy at epsilon 0 minus the clean "
            "accuracy",
            explanation=_explain(passed, moved, difference),
            statistics={
                "clean_accuracy": 1.0 - float(before.failure_rate.mean()),
                "null_accuracy": 1.0 - float(after.failure_rate.mean()),
                "any_draw_accuracy": float((before.failure_rate == 0).double().mean()),
                "moved_examples": moved,
            },
            tried=(
                Tried(
                    by="attack",
                    threat=nothing,
                    x_adv=x_adv,
                    failure_rate=after.failure_rate,
                    draws=self.draws,
                ),
            ),
        )


def _explain(passed: bool, moved: float, difference: float) -> str:
    if passed:
        return "An attack of size zero changes nothing."
    if moved:
        return f"The attack moves {moved:.1%} of the examples although epsilon is 0."
    return (
        f"Accuracy changes by {difference:+.1%} although epsilon is 0: the network's answers depend on "
        "what it was "
        "asked before, or success is scored on lucky draws."
    )
