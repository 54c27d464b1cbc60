"""The steps of an audit: stages fitted to the network and threat model at hand, and what random networks get beside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from ...attacks import (
    Attack,
    CoordinateSearch,
    HopSkipJump,
    JointPGD,
    MomentumPGD,
    RayS,
    Setting,
    Substitute,
    ascent,
    search,
)
from ...gradients import EOT, Exact, FiniteDifference, GradientEstimator
from ...objectives import Confident, Objective, Undetected, margin_loss
from ...remedies import Candidate
from ...threat import FewPixels, Linf, ThreatModel
from .plan import Budget, Stage


@dataclass(frozen=True)
class Step:
    """One line of the report. `fraction` is of the examples not yet broken, those nearest to breaking."""

    name: str
    recipe: str
    attack: Attack
    fraction: float = 1.0


def step_of(stage: Stage, label: str, setting: Setting) -> Step | None:
    """A stage for the network at hand, along the gradient of that label; None where it has nothing to do."""
    if stage.repeats_naive and setting.gradient == Exact():
        return None
    attack = stage.attack.fit(setting)
    if attack is None:
        return None
    on = "" if stage.fraction == 1 else f" on the {stage.fraction:.0%} nearest to breaking"
    who = f", {label}" if attack.needs_gradient else ""
    recipe = f"{stage.name}: {attack.describe()}{on}{who}"
    return Step(f"{label}/{stage.name}", recipe, attack, stage.fraction)


def first_step(
    budget: Budget,
    threat: ThreatModel,
    label: str,
    gradient: GradientEstimator,
    objective: Objective,
    early_stop: bool,
) -> Step:
    """A repaired gradient on everything, long enough for steps and staircases."""
    attack = ascent(threat, steps=budget.steps, gradient=gradient, objective=objective, early_stop=early_stop)
    return Step(f"{label}/all {budget.steps}", f"{attack.describe()}, {label}", attack)


def averaged_steps(
    budget: Budget, threat: ThreatModel, ways: Sequence[Candidate], *, passes: int
) -> Iterator[Step]:
    """For random networks: many steps of few draws each, averaged over the steps instead of at a point.

    Measured in `benchmarks/eot_draws.py`: at equal cost stronger than averaging at each point. What is left of the
    noise takes every run elsewhere, so that a second and a third, one of them from the image itself, gain more than
    more draws do: ours. Where one pass decides, what counts is how many draws are fooled, not how far: the third is
    content with a little on each.

    `ways`: the gradient to follow, and others that are level with it, which later runs take in turn.
    """
    steps = 4 * budget.steps
    if isinstance(
        threat, FewPixels
    ):  # which pixels change jumps from step to step: nothing averages over the steps
        first = ways[0]
        few = EOT(_single(first), draws=4)
        attack = ascent(
            threat, steps=steps // 2, restarts=2, gradient=few, objective=first.objective, early_stop=False
        )
        recipe = f"{attack.describe()}, 4 draws a step, {first.name}"
        yield Step(f"{first.name}/averaged {steps // 2}", recipe, attack)
        return
    for way, (name, draws, random_start, content) in zip(
        cycle(ways),
        (("", 1, True, False), (" from the image", 4, False, False), (" again", 4, True, passes == 1)),
        strict=False,
    ):
        attack = MomentumPGD(
            steps=steps,
            gradient=_single(way) if draws == 1 else EOT(_single(way), draws=draws),
            objective=Confident(way.objective, 1.0) if content else way.objective,
            random_start=random_start,
            early_stop=False,
        )
        words = "single draws" if draws == 1 else f"{draws} draws a step"
        recipe = f"momentum PGD-{steps} of {words}{name}, {way.name}"
        yield Step(f"{way.name}/momentum {steps}{name}", recipe, attack)


def _single(way: Candidate) -> GradientEstimator:
    """One draw of it."""
    return way.gradient.inner if isinstance(way.gradient, EOT) else way.gradient


def joint_steps(
    budget: Budget,
    threat: ThreatModel,
    label: str,
    gradient: GradientEstimator,
    *,
    early_stop: bool,
    classes: int,
) -> Iterator[Step]:
    """For a network beside a detector: no weight between fooling the one and passing the other.

    On MNIST behind a Mahalanobis detector the weighted sum breaks nothing and these break everything
    (`reproductions/lecture-defenses`).
    """
    steps = 2 * budget.steps
    few = isinstance(threat, FewPixels)
    for rule in () if few else ("selective", "orthogonal"):
        attack = JointPGD(rule=rule, steps=steps, gradient=gradient, early_stop=early_stop)
        yield Step(f"{label}/joint {steps} {rule}", f"{attack.describe()}, {label}", attack)
    # A score has a unit of its own: over several weights one fits. Confidence beyond the least is worth nothing.
    for weight in (1.0, 10.0, 100.0):
        both = Undetected(Confident(margin_loss, 1.0), weight)
        attack = ascent(
            threat, steps=steps, restarts=2, gradient=gradient, objective=both, early_stop=early_stop
        )
        words = f"{attack.describe()}, detector weighed {weight:g}, {label}"
        yield Step(f"{label}/detector {steps} {weight:g}", words, attack)
    if classes < 3 or few:
        return
    # Which class the detector lets pass, only trying tells: behind MagNet 78 % fall instead of 69 %.
    attack = JointPGD(targets=classes - 1, steps=steps, gradient=gradient, early_stop=early_stop)
    yield Step(f"{label}/joint {steps} targets", f"{attack.describe()}, {label}", attack)


def black_box_steps(
    budget: Budget, threat: ThreatModel, setting: Setting, *, substitute: bool
) -> Iterator[Step]:
    """For networks whose gradient cannot be repaired, or whose repair may have missed something.

    A `substitute` is trained only where no gradient at all was of use: it costs more time than everything else.
    """
    queries = budget.black_box_queries
    if isinstance(threat, FewPixels):  # no attack that is told labels alone is known here
        attack = search(threat, queries=queries).fit(setting)
        assert attack is not None
        yield Step(f"search {queries}", attack.describe(), attack)
        return
    labels = RayS(queries=queries) if isinstance(threat, Linf) else HopSkipJump(queries=queries)
    stages = [Stage(name=f"square all {queries}", attack=search(threat, queries=queries))]
    stages += [Stage(name=f"decision {queries}", attack=labels)]
    stages += [Stage(name=f"coordinates {queries}", attack=CoordinateSearch(queries=max(queries, 1000)))]
    stages += [Stage(name=f"substitute {queries}", attack=Substitute())] if substitute else []
    for stage in stages:
        attack = stage.attack.fit(setting)
        if attack is not None:
            yield Step(stage.name, attack.describe(), attack)


def slope_free_step(budget: Budget, threat: ThreatModel, *, size: float) -> Step:
    """Slopes of the whole network at the attack's scale, where no gradient of its own is to be trusted.

    `size` is how far every element can move at once (`remedies.per_element`). Not for a random network: between two
    points its noise decides.
    """
    slopes = FiniteDifference(samples=16, delta=size / 4)
    attack = ascent(threat, steps=budget.steps, objective=margin_loss, gradient=slopes, early_stop=True)
    return Step("finite differences", f"{attack.describe()}, finite differences of the whole network", attack)
