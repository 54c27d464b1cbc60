"""Which controls an audit runs, by threat model and by what the adversary sees."""

from __future__ import annotations

from dataclasses import replace

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

# Steps of an attack that may change nothing: what it finds is where it began, and so after each. Ours.
NULL_STEPS = 1


def few_draws(gradient: GradientEstimator) -> GradientEstimator:
    """The gradient as controls follow it: of a random network on fewer draws than attacks."""
    return EOT(gradient.inner, max_draws=4) if isinstance(gradient, EOT) else gradient


def plain_attack(
    gradient: GradientEstimator, objective: Objective, threat: ThreatModel, *, early_stop: bool
) -> Attack:
    """The plain attack that most controls ask about.

    Ten long steps: the harder for the controls to find it as good as it should be, the fewer it has.
    """
    few = few_draws(gradient)
    if isinstance(threat, FewPixels):
        return ascent(threat, steps=20, restarts=2, gradient=few, objective=objective, early_stop=early_stop)
    if isinstance(objective, Undetected):  # beside a detector no weight between the two fits every epsilon
        return JointPGD(steps=60, gradient=few, early_stop=early_stop)
    if not isinstance(threat, Linf | L2):  # where one step of PGD moves no more than one pixel
        return APGD(steps=20, gradient=few, objective=objective, early_stop=early_stop)
    return PGD(steps=10, rel_step_size=0.25, gradient=few, objective=objective, early_stop=early_stop)


def suite(
    attack: Attack,
    gradient: GradientEstimator,
    objective: Objective,
    threat: ThreatModel,
    *,
    early_stop: bool,
) -> dict[Check, Diagnostic]:
    """The controls, and the diagnostic that asks each one's question.

    What is `exact` asks about the gradient that a standard attack follows, all others about the attack chosen here.

    **Arguments**
    - `attack`: the `plain_attack`, or the same as it has run already (`shared.py`).
    """
    few = few_draws(gradient)
    plain = plain_attack(gradient, objective, threat, early_stop=early_stop)
    if isinstance(threat, FewPixels):
        return _suite_of_few_pixels(attack, plain, threat, early_stop=early_stop)
    many, null = plain, plain
    if isinstance(plain, PGD):
        many, null = (
            replace(plain, steps=20, rel_step_size=0.125),
            replace(plain, steps=NULL_STEPS, last=True),
        )
    apgd = APGD(steps=20, restarts=2, gradient=few, objective=objective, early_stop=early_stop)
    fgsm = FGSM(gradient=few, objective=objective)
    return {
        NULL_ATTACK: NullAttack(attack=null),
        UNBOUNDED: Unbounded(attack=many),
        CURVE: Monotone(attack=attack),
        NOISE: RandomNoise(attack=attack),
        ONE_STEP: OneStep(one=fgsm, many=attack),
        SEARCH: BlackBox(black=search(threat, queries=200, early_stop=early_stop), white=attack),
        PLANTED: Planted(attack=apgd),
        SLOPES: GradientCheck(sizes=(0.1, 1.0)),
        SHARE: GradientShare(),
        REPEATABILITY: Repeatability(draws=2 if early_stop else 4),
        RANDOMNESS: RandomnessGain(attack=many),
    }


# Of the suite, what has no meaning where few pixels change, and why.
LEFT_OUT = {
    ONE_STEP: "left out: where few pixels change, no step is steepest and no attack takes one alone",
    PLANTED: "left out: what tells one set of changed pixels from all others has no slope to follow",
}


def _suite_of_few_pixels(
    attack: Attack, plain: Attack, threat: FewPixels, *, early_stop: bool
) -> dict[Check, Diagnostic]:
    """As `suite`, without what is `LEFT_OUT`; `plain` is the attack as it has not run yet."""
    return {
        NULL_ATTACK: NullAttack(attack=plain),
        UNBOUNDED: Unbounded(attack=plain),
        CURVE: Monotone(attack=attack),
        NOISE: RandomNoise(attack=attack),
        SEARCH: BlackBox(black=search(threat, queries=200, early_stop=early_stop), white=attack),
        SLOPES: GradientCheck(sizes=(0.1, 1.0)),
        SHARE: GradientShare(),
        REPEATABILITY: Repeatability(draws=2 if early_stop else 4),
        RANDOMNESS: RandomnessGain(attack=plain),
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
