"""Three cascades for three budgets, whatever the norm, the number of classes and the gradient."""

from __future__ import annotations

from dataclasses import replace

from ..gradients import Exact, GradientEstimator
from ..objectives import Objective, Targeted, cross_entropy, margin
from .apgd import APGD
from .cascade import Stage
from .square import Square
from .targeted_apgd import TargetedAPGD

_EXACT = Exact()
_SQUARE_DRAWS = 4  # ours: forwards averaged into one score of a random network


def _apgd(gradient: GradientEstimator, steps: int, objective: Objective = margin, restarts: int = 1) -> APGD:
    return APGD(steps=steps, restarts=restarts, objective=objective, gradient=gradient)


def _targeted(gradient: GradientEstimator, targets: int, steps: int) -> TargetedAPGD:
    return TargetedAPGD(targets=targets, steps=steps, objective=Targeted(), gradient=gradient)


def _for_random(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same stages for a random network, where one lucky draw proves nothing."""

    def patient(stage: Stage) -> Stage:
        if isinstance(stage.attack, Square):
            return replace(stage, attack=replace(stage.attack, early_stop=False, draws=_SQUARE_DRAWS))
        assert isinstance(stage.attack, APGD | TargetedAPGD)
        return replace(stage, attack=replace(stage.attack, early_stop=False))

    return tuple(patient(stage) for stage in stages)


def quick(gradient: GradientEstimator = _EXACT, *, deterministic: bool = True) -> tuple[Stage, ...]:
    """A first look: at most about 32 estimates per surviving example, and 25 scores of random search.

    **Fields** as for `standard`.
    """
    stages = (
        Stage("margin", _apgd(gradient, 10)),
        Stage("cross-entropy", _apgd(gradient, 20, cross_entropy), 0.5),
        Stage("nearest class", _targeted(gradient, 1, 20), 0.2),
        Stage("restarts", _apgd(gradient, 20, restarts=3), 0.1),
        Stage("random search", Square(queries=500), 0.05),
    )
    return stages if deterministic else _for_random(stages)


def standard(gradient: GradientEstimator = _EXACT, *, deterministic: bool = True) -> tuple[Stage, ...]:
    """The default: at most about 75 estimates per surviving example, and 220 scores of random search.

    The margin and cross-entropy see everything; targets, restarts, a long run and random search see the
    examples that those left near the boundary, where almost all that is still to be found lies.

    **Fields**
    - `gradient`: the estimator of every stage that follows a gradient.
    - `deterministic`: False for random networks: no example leaves a stage on one lucky draw.
    """
    stages = (
        Stage("margin", _apgd(gradient, 10)),
        Stage("cross-entropy", _apgd(gradient, 20, cross_entropy)),
        Stage("nearest class", _targeted(gradient, 1, 20), 0.5),
        Stage("restarts", _apgd(gradient, 20, restarts=3), 0.2),
        Stage("long run", _apgd(gradient, 100), 0.1),
        Stage("random search", Square(queries=2000), 0.06),
        Stage("many restarts", _apgd(gradient, 20, restarts=8), 0.05),
        Stage("long random search", Square(queries=5000), 0.02),
    )
    return stages if deterministic else _for_random(stages)


def thorough(gradient: GradientEstimator = _EXACT, *, deterministic: bool = True) -> tuple[Stage, ...]:
    """For a number to publish: the default, then long runs on everything and all targets near the boundary.

    At most about 415 estimates per surviving example, and 1,720 scores of random search.

    **Fields** as for `standard`.
    """
    stages = (
        *standard(gradient),
        Stage("long cross-entropy", _apgd(gradient, 100, cross_entropy)),
        Stage("all classes", _targeted(gradient, 9, 50), 0.3),
        Stage("twenty restarts", _apgd(gradient, 50, restarts=20), 0.1),
        Stage("random search on many", Square(queries=5000), 0.3),
    )
    return stages if deterministic else _for_random(stages)
