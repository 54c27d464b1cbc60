"""The plan: what runs, in which order, on how many examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from ..attacks import (
    APGD,
    Attack,
    HopSkipJump,
    JointPGD,
    MomentumPGD,
    RayS,
    Square,
    Substitute,
    TargetedAPGD,
    budgets,
)
from ..attacks.cascade import Stage
from ..errors import UnusableInput
from ..gradients import EOT, FiniteDifference, GradientEstimator
from ..objectives import Confident, Objective, Targeted, Undetected, cross_entropy, margin
from ..threat import Linf, ThreatModel


@dataclass(frozen=True)
class Budget:
    """How much is spent where. All figures are ours; `benchmarks/cascade_cost.py` measures the stages.

    **Fields**
    - `naive_steps`: of the standard attack that the report quotes as naive.
    - `race_examples`, `race_steps`: the race between candidates.
    - `steps`: of the first run of a repaired gradient on all examples.
    - `stages`: the cascade that the winner runs afterwards; random search comes last.
    - `black_box_queries`: per example, where gradients are suspect and examples are left.
    - `draws`: cap on draws per gradient of a random network.
    - `control_examples`: on which the controls run.
    - `relaxation`: linear relaxations (CROWN) are tried up to this many hidden elements times examples; intervals
      always.
    """

    naive_steps: int
    race_examples: int
    race_steps: int
    steps: int
    stages: Callable[..., tuple[Stage, ...]]
    black_box_queries: int
    draws: int
    control_examples: int
    relaxation: int


BUDGETS: dict[str, Budget] = {
    "quick": Budget(20, 16, 12, 20, budgets.quick, 300, 8, 16, 0),
    "standard": Budget(40, 32, 20, 40, budgets.standard, 1500, 16, 32, 400_000),
    "thorough": Budget(100, 64, 40, 100, budgets.thorough, 10000, 64, 64, 20_000_000),
}


def budget_named(name: str) -> Budget:
    """The budget of that name."""
    if name not in BUDGETS:
        raise UnusableInput(f"the budget is {name!r}; choose one of {', '.join(BUDGETS)}")
    return BUDGETS[name]


@dataclass(frozen=True)
class Step:
    """One line of the plan. `fraction` is of the examples not yet broken, those nearest to breaking."""

    name: str
    recipe: str
    attack: Attack
    fraction: float = 1.0

    @property
    def attack_is_search(self) -> bool:
        """Whether it needs no gradient."""
        return isinstance(self.attack, Square)


def first_step(
    budget: Budget, label: str, gradient: GradientEstimator, objective: Objective, early_stop: bool
) -> Step:
    """A repaired gradient on everything, long enough for steps and staircases."""
    attack = APGD(steps=budget.steps, gradient=gradient, objective=objective, early_stop=early_stop)
    return Step(f"{label}/all", f"APGD-{budget.steps}, {label}", attack)


def averaged_steps(
    budget: Budget, label: str, gradient: GradientEstimator, objective: Objective, *, passes: int
) -> Iterator[Step]:
    """For random networks: many steps of few draws each, averaged over the steps instead of at a point.

    Measured in `benchmarks/eot_draws.py`: at equal cost stronger than averaging at each point. What is left of the
    noise takes every run elsewhere, so that a second and a third, one of them from the image itself, gain more than
    more draws do: ours. Where one pass decides, what counts is how many draws are fooled, not how far: the third is
    content with a little on each.
    """
    single = gradient.inner if isinstance(gradient, EOT) else gradient
    steps = 4 * budget.steps
    enough = Confident(objective, 1.0) if passes == 1 else objective
    for name, draws, random_start, aim in (
        ("", 1, True, objective),
        (" from the image", 4, False, objective),
        (" again", 4, True, enough),
    ):
        attack = MomentumPGD(
            steps=steps,
            gradient=single if draws == 1 else EOT(single, draws=draws),
            objective=aim,
            random_start=random_start,
            early_stop=False,
        )
        words = "single draws" if draws == 1 else f"{draws} draws a step"
        yield Step(f"{label}/momentum{name}", f"momentum PGD-{steps} of {words}{name}, {label}", attack)


def cascade(
    budget: Budget,
    label: str,
    gradient: GradientEstimator,
    *,
    deterministic: bool,
    detector: bool,
    classes: int,
) -> Iterator[Step]:
    """What the winner of the race runs: cheap attacks on everything, dear ones on the examples nearest to breaking."""
    for stage in budget.stages(gradient, deterministic=deterministic):
        attack = stage.attack
        if isinstance(attack, TargetedAPGD):
            if classes < 3:
                continue  # the only other class is the margin's own, or the goal's
            attack = replace(attack, targets=min(attack.targets, classes - 1))
        if (
            label == "exact"
            and isinstance(attack, APGD)
            and attack.objective == cross_entropy
            and stage.fraction == 1
        ):
            continue  # that is what the naive attack already was
        if detector and isinstance(attack, APGD | Square):
            attack = replace(attack, objective=Undetected(attack.objective))
        on = "" if stage.fraction == 1 else f" on the {stage.fraction:.0%} nearest to breaking"
        who = "" if isinstance(attack, Square) else f", {label}"
        yield Step(
            f"{label}/{stage.name}", f"{stage.name}: {_words(attack)}{on}{who}", attack, stage.fraction
        )


def joint_steps(
    budget: Budget, label: str, gradient: GradientEstimator, *, early_stop: bool, classes: int
) -> Iterator[Step]:
    """For a network beside a detector: no weight between fooling the one and passing the other.

    On MNIST behind a Mahalanobis detector the weighted sum breaks nothing and these break everything
    (`reproductions/lecture-defenses`).
    """
    steps = 2 * budget.steps
    for rule in ("selective", "orthogonal"):
        attack = JointPGD(rule=rule, steps=steps, gradient=gradient, early_stop=early_stop)
        yield Step(f"{label}/joint {rule}", f"joint PGD-{steps}, {rule}, {label}", attack)
    # A score has a unit of its own: over several weights one fits. Confidence beyond the least is worth nothing.
    for weight in (1.0, 10.0, 100.0):
        both = Undetected(Confident(margin, 1.0), weight)
        attack = APGD(steps=steps, restarts=2, gradient=gradient, objective=both, early_stop=early_stop)
        words = f"APGD-{steps}, 2 restarts, detector weighed {weight:g}, {label}"
        yield Step(f"{label}/detector {weight:g}", words, attack)
    if classes < 3:
        return
    # Which class the detector lets pass, only trying tells: behind MagNet 78 % fall instead of 69 %.
    attack = JointPGD(targets=classes - 1, steps=steps, gradient=gradient, early_stop=early_stop)
    words = f"joint PGD-{steps}, selective, {classes - 1} classes, {label}"
    yield Step(f"{label}/joint targets", words, attack)


def more_targets(
    label: str, gradient: GradientEstimator, *, early_stop: bool, classes: int
) -> Iterator[Step]:
    """All target classes on all that is left, ever longer; the caller stops when it no longer pays."""
    if classes < 3:
        return
    for steps in (20, 50, 100):
        attack = TargetedAPGD(
            steps=steps, targets=classes - 1, objective=Targeted(), gradient=gradient, early_stop=early_stop
        )
        yield Step(f"{label}/all targets {steps}", f"all targets: {_words(attack)}, {label}", attack)


def _words(attack: Attack) -> str:
    if isinstance(attack, Square):
        return f"Square-{attack.queries}"
    if isinstance(attack, TargetedAPGD):
        return f"targeted APGD-{attack.steps}, {attack.targets} classes"
    assert isinstance(attack, APGD)
    restarts = f", {attack.restarts} restarts" if attack.restarts > 1 else ""
    return f"APGD-{attack.steps}{restarts}"


def black_box_steps(
    budget: Budget, threat: ThreatModel, *, early_stop: bool, substitute: bool
) -> Iterator[Step]:
    """For networks whose gradient cannot be repaired, or whose repair may have missed something.

    A `substitute` is trained only where no gradient at all was of use: it costs more time than everything else.
    """
    queries = budget.black_box_queries
    draws = 1 if early_stop else 4
    yield Step("square all", f"Square-{queries}", Square(queries=queries, early_stop=early_stop, draws=draws))
    if early_stop:
        if isinstance(threat, Linf):
            yield Step("decision", f"RayS-{queries} (labels only)", RayS(queries=queries))
        else:
            yield Step("decision", f"HopSkipJump-{queries} (labels only)", HopSkipJump(queries=queries))
    if substitute:
        yield Step("substitute", "substitute network, transferred", Substitute(early_stop=early_stop))


def slope_free_steps(budget: Budget, threat: ThreatModel, *, early_stop: bool) -> Iterator[Step]:
    """Slopes of the whole network at the attack's scale, where no gradient of its own is to be trusted.

    Not for a random network: between two points its noise decides.
    """
    if not early_stop:
        return
    delta = threat.epsilon / 4 if isinstance(threat, Linf) else 0.05
    slopes = FiniteDifference(samples=16, delta=delta)
    attack = APGD(steps=budget.steps, objective=margin, gradient=slopes, early_stop=early_stop)
    yield Step("finite differences", f"APGD-{budget.steps}, finite differences of the whole network", attack)
