"""Which controls an audit runs, by threat model and by what the adversary sees."""

from __future__ import annotations

from ...attacks import APGD, FGSM, PGD, Attack, JointPGD, ascent, search
from ...diagnostics import (
    BlackBox,
    Diagnostic,
    GradientCheck,
    GradientShare,
    Monotone,
    NullAttack,
    OneStep,
    Planted,
    RandomnessGain,
    RandomNoise,
    Repeatability,
    Unbounded,
)
from ...gradients import EOT, GradientEstimator
from ...objectives import Objective, Undetected
from ...threat import L2, FewPixels, Linf, ThreatModel
from ..records import Control
from .check import (
    CURVE,
    NOISE,
    NULL_ATTACK,
    ONE_STEP,
    PLANTED,
    RANDOMNESS,
    REPEATABILITY,
    SEARCH,
    SHARE,
    SLOPES,
    UNBOUNDED,
    Check,
)


def suite(
    gradient: GradientEstimator, objective: Objective, threat: ThreatModel, *, early_stop: bool
) -> dict[Check, Diagnostic]:
    """The controls, and the diagnostic that asks each one's question.

    What is `exact` asks about the gradient that a standard attack follows, all others about the attack chosen here.
    """
    few = EOT(gradient.inner, max_draws=4) if isinstance(gradient, EOT) else gradient
    if isinstance(threat, FewPixels):
        return _suite_of_few_pixels(few, objective, threat, early_stop=early_stop)
    pgd: Attack = PGD(steps=20, rel_step_size=0.125, gradient=few, objective=objective, early_stop=early_stop)
    if not isinstance(threat, Linf | L2):  # where one step of PGD moves no more than one pixel
        pgd = APGD(steps=20, gradient=few, objective=objective, early_stop=early_stop)
    if isinstance(objective, Undetected):  # beside a detector no weight between the two fits every epsilon
        pgd = JointPGD(steps=60, gradient=few, early_stop=early_stop)
    apgd = APGD(steps=20, restarts=2, gradient=few, objective=objective, early_stop=early_stop)
    fgsm = FGSM(gradient=few, objective=objective)
    return {
        NULL_ATTACK: NullAttack(attack=pgd),
        UNBOUNDED: Unbounded(attack=pgd),
        CURVE: Monotone(attack=pgd),
        NOISE: RandomNoise(attack=pgd),
        ONE_STEP: OneStep(one=fgsm, many=pgd),
        SEARCH: BlackBox(black=search(threat, queries=200, early_stop=early_stop), white=pgd),
        PLANTED: Planted(attack=apgd),
        SLOPES: GradientCheck(),
        SHARE: GradientShare(),
        REPEATABILITY: Repeatability(),
        RANDOMNESS: RandomnessGain(attack=pgd),
    }


# Of the suite, what has no meaning where few pixels change, and why.
LEFT_OUT = {
    ONE_STEP: "left out: where few pixels change, no step is steepest and no attack takes one alone",
    PLANTED: "left out: what tells one set of changed pixels from all others has no slope to follow",
}


def _suite_of_few_pixels(
    gradient: GradientEstimator, objective: Objective, threat: FewPixels, *, early_stop: bool
) -> dict[Check, Diagnostic]:
    """As `suite`, without what is `LEFT_OUT`."""
    white = ascent(
        threat, steps=20, restarts=2, gradient=gradient, objective=objective, early_stop=early_stop
    )
    return {
        NULL_ATTACK: NullAttack(attack=white),
        UNBOUNDED: Unbounded(attack=white),
        CURVE: Monotone(attack=white),
        NOISE: RandomNoise(attack=white),
        SEARCH: BlackBox(black=search(threat, queries=200, early_stop=early_stop), white=white),
        SLOPES: GradientCheck(),
        SHARE: GradientShare(),
        REPEATABILITY: Repeatability(),
        RANDOMNESS: RandomnessGain(attack=white),
    }


def left_out(threat: ThreatModel, *, outside: bool) -> list[Control]:
    """A line of the report for each control that does not run under this threat model."""
    if outside or not isinstance(threat, FewPixels):
        return []
    return [Control(name=check.name, passed=None, explanation=why) for check, why in LEFT_OUT.items()]


def suite_outside(search: Attack, *, targeted: bool) -> dict[Check, Diagnostic]:
    """As `suite`, where the adversary's only attack is a search over answers.

    On few queries it reaches any wrong class of the whole box, but not surely a given one.
    """
    found: dict[Check, Diagnostic] = {
        NULL_ATTACK: NullAttack(attack=search),
        UNBOUNDED: Unbounded(attack=search),
        CURVE: Monotone(attack=search),
        NOISE: RandomNoise(attack=search),
        SLOPES: GradientCheck(),
        SHARE: GradientShare(),
        REPEATABILITY: Repeatability(),
    }
    if targeted:
        del found[UNBOUNDED]
    return found
