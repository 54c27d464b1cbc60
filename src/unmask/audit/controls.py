"""The controls: checks that would catch an attack that only seems to fail."""

from __future__ import annotations

from ..attacks import APGD, FGSM, PGD, Square
from ..attacks.base import Images, Labels
from ..classifier import Classifier
from ..diagnostics import (
    BlackBox,
    Diagnostic,
    GradientCheck,
    GradientShare,
    Monotone,
    NullAttack,
    OneStep,
    Planted,
    RandomNoise,
    Reading,
    Repeatability,
    Unbounded,
)
from ..errors import UnmaskError
from ..gradients import EOT, GradientEstimator
from ..objectives import Objective
from ..randomness import Streams
from ..threat import ThreatModel
from .records import Control


def suite(gradient: GradientEstimator, objective: Objective, *, early_stop: bool) -> dict[str, Diagnostic]:
    """The controls by the name under which the report lists them.

    "exact" asks about the gradient that a standard attack follows, all others about the attack that the audit chose.
    """
    few = EOT(gradient.inner, max_draws=4) if isinstance(gradient, EOT) else gradient
    pgd = PGD(steps=20, rel_step_size=0.125, gradient=few, objective=objective, early_stop=early_stop)
    apgd = APGD(steps=20, restarts=2, gradient=few, objective=objective, early_stop=early_stop)
    fgsm = FGSM(gradient=few, objective=objective)
    return {
        "null attack": NullAttack(attack=pgd),
        "unbounded epsilon": Unbounded(attack=pgd),
        "epsilon monotonicity": Monotone(attack=pgd),
        "random noise of the same size": RandomNoise(attack=pgd),
        "one step against many": OneStep(one=fgsm, many=pgd),
        "black box against white box": BlackBox(black=Square(queries=200, early_stop=early_stop), white=pgd),
        "planted example": Planted(attack=apgd),
        "gradient against finite difference, exact": GradientCheck(),
        "gradient share, exact": GradientShare(),
        "repeatability": Repeatability(),
    }


def examine(
    diagnostic: Diagnostic,
    classifier: Classifier,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    streams: Streams,
) -> Reading | None:
    """Runs one control; None where it does not apply to this network."""
    try:
        return diagnostic.examine(classifier, x, y, threat, generator=streams)
    except (UnmaskError, RuntimeError, NotImplementedError):
        return None


def as_control(name: str, reading: Reading | None, *, suspicious: bool) -> Control:
    """The report's line for a reading.

    A planted example that is missed decides only where something is suspicious anyway: networks whose rectifiers are
    mostly dead, such as those certified by intervals, hide some from sound attacks too.
    """
    if reading is None:
        return Control(name=name, passed=None, explanation="does not apply to this network")
    # Symptoms of the network are findings, not proof against the attack: only the attack's own controls decide.
    decisive = reading.decisive and not name.endswith("exact") and (suspicious or name != "planted example")
    return Control(
        name=name,
        passed=reading.passed,
        value=reading.value,
        expected=reading.expected,
        explanation=reading.explanation,
        decisive=decisive,
    )
