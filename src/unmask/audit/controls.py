"""The controls: checks that would catch an attack that only seems to fail."""

from __future__ import annotations

from typing import Any

import torch

from ..attacks import APGD, FGSM, PGD, Attack, JointPGD, Square
from ..attacks.base import Images, Labels
from ..classifier import Classifier, Meter
from ..diagnostics import (
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
    Reading,
    Repeatability,
    Unbounded,
)
from ..errors import UnmaskError
from ..gradients import EOT, GradientEstimator
from ..objectives import Objective, Undetected
from ..randomness import Streams
from ..threat import ThreatModel
from .black_box import search_for_controls
from .candidates import Candidate
from .context import Subject
from .records import Control
from .runtime.batch_size import BatchSize
from .standing import Standing


def suite(gradient: GradientEstimator, objective: Objective, *, early_stop: bool) -> dict[str, Diagnostic]:
    """The controls by the name under which the report lists them.

    "exact" asks about the gradient that a standard attack follows, all others about the attack that the audit chose.
    """
    few = EOT(gradient.inner, max_draws=4) if isinstance(gradient, EOT) else gradient
    pgd: Attack = PGD(steps=20, rel_step_size=0.125, gradient=few, objective=objective, early_stop=early_stop)
    if isinstance(objective, Undetected):  # beside a detector no weight between the two fits every epsilon
        pgd = JointPGD(steps=60, gradient=few, early_stop=early_stop)
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
        "randomness against none": RandomnessGain(attack=pgd),
    }


def suite_outside(search: Attack, *, targeted: bool) -> dict[str, Diagnostic]:
    """As `suite`, where the adversary's only attack is a search over answers.

    On few queries it reaches any wrong class of the whole box, but not surely a given one.
    """
    found: dict[str, Diagnostic] = {
        "null attack": NullAttack(attack=search),
        "unbounded epsilon": Unbounded(attack=search),
        "epsilon monotonicity": Monotone(attack=search),
        "random noise of the same size": RandomNoise(attack=search),
        "gradient against finite difference, exact": GradientCheck(),
        "gradient share, exact": GradientShare(),
        "repeatability": Repeatability(),
    }
    if targeted:
        del found["unbounded epsilon"]
    return found


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
    except torch.OutOfMemoryError:
        raise
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


def run_controls(
    subject: Subject, standing: Standing, winner: Candidate, *, suspicious: bool
) -> tuple[list[Control], list[tuple[float, float]]]:
    """All controls on a few examples, those in the journal as they were. Returns them and accuracy against epsilon."""
    memory = BatchSize(standing.memory.size, "controls", subject.journal, subject.progress)
    meter = subject.classifier.meter
    if subject.outside:
        checks = suite_outside(search_for_controls(subject), targeted=subject.threat.goal == "targeted")
    else:
        checks = suite(winner.gradient, winner.objective, early_stop=not subject.random)
    found, curve = [], []
    for done, (name, check) in enumerate(checks.items(), 1):
        key = f"control {name}"
        entry = subject.journal.get(key) if subject.journal else None
        if entry is not None:
            record = entry.record
            standing.replay(Meter(**record["meter"]))
        else:
            before = meter.snapshot()

            def on(size: int, check: Diagnostic = check, key: str = key) -> Reading | None:
                few = slice(min(subject.budget.control_examples, size))
                x, y, streams = subject.x[few], subject.aim[few], subject.streams(key, few)
                return examine(check, subject.classifier, x, y, subject.threat, streams)

            reading = memory.fitting(on, min(subject.budget.control_examples, len(subject)), meter)
            curved = reading if name == "epsilon monotonicity" else None
            record: dict[str, Any] = {
                "control": as_control(name, reading, suspicious=suspicious).model_dump(),
                "curve": list(curved.curve) if curved else [],
                "meter": vars(meter.since(before)),
            }
            if subject.journal:
                subject.journal.put(key, record)
        found.append(Control(**record["control"]))
        curve += [tuple(point) for point in record["curve"]]
        subject.progress.update(standing.robust_accuracy, done, len(checks))
    return found, curve
