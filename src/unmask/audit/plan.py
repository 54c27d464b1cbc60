"""The plan: what runs, in which order, on how many examples, and what must have paid before.

A `Budget` is a table of `Stage`s; `audit/attack_runner.py` walks through it. All figures are ours, from
`benchmarks/cascade_cost.py`, which prints what each stage broke and what that cost.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..attacks import (
    APGD,
    Attack,
    BoundaryWalk,
    HopSkipJump,
    JointPGD,
    MomentumPGD,
    RayS,
    Setting,
    Square,
    Substitute,
    TargetedAPGD,
)
from ..errors import UnusableInput
from ..gradients import EOT, FiniteDifference, GradientEstimator
from ..objectives import Confident, Objective, Targeted, Undetected, cross_entropy, margin
from ..threat import Linf, ThreatModel


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An attack of a budget, before it is known which network it meets.

    **Fields**
    - `name`: distinct within a budget; it labels the record and names the stage's random numbers.
    - `attack`: what runs, fitted to the network by its own `fit`. Any attack will do.
    - `fraction`: share, in (0, 1], of the examples not yet broken that it runs on: those nearest to breaking.
    - `given`: a stage without whose success this one is not worth trying; it must have broken something.
    - `unless`: a stage that makes this one needless, if it ran.
    - `repeats_naive`: what the naive attack has done already where the exact gradient is the one to follow.
    """

    name: str
    attack: Attack
    fraction: float = 1.0
    given: str = ""
    unless: str = ""
    repeats_naive: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.fraction <= 1:
            raise UnusableInput(f"stage `{self.name}` has fraction={self.fraction}; give a number in (0, 1]")


Line = tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is spent where.

    **Fields**
    - `naive_steps`: of the standard attack that the report quotes as naive.
    - `race_examples`, `race_steps`: the race between candidates.
    - `steps`: of the first run of a repaired gradient on all examples.
    - `lines`: stages of rising cost. The first of each line runs; each of the others only where the one before it
      paid (`attack_runner.PAYING`).
    - `black_box_queries`: per example, where gradients are suspect and examples are left.
    - `draws`: cap on draws per gradient of a random network.
    - `control_examples`: on which the controls run.
    - `relaxation`: linear relaxations (CROWN) are tried up to this many hidden elements times examples; intervals
      always.
    - `after`: a budget that is spent first, to the last step: whatever that breaks, this breaks too.
    """

    naive_steps: int
    race_examples: int
    race_steps: int
    steps: int
    lines: tuple[Line, ...]
    black_box_queries: int
    draws: int
    control_examples: int
    relaxation: int
    after: Budget | None = None

    def __post_init__(self) -> None:
        names = [stage.name for budget in self.in_turn() for line in budget.lines for stage in line]
        if len(set(names)) < len(names):
            raise UnusableInput(
                f"the stages are named {', '.join(names)}; every stage needs a name of its own"
            )

    def in_turn(self) -> tuple[Budget, ...]:
        """The budgets to spend, one after the other."""
        return (*self.after.in_turn(), self) if self.after else (self,)


def _climb(steps: int, objective: Objective = margin, restarts: int = 1) -> APGD:
    return APGD(steps=steps, restarts=restarts, objective=objective)


def _aimed(steps: int, targets: int) -> TargetedAPGD:
    return TargetedAPGD(steps=steps, targets=targets, objective=Targeted())


ALL_CLASSES = 999  # as many as there are: at this end targets are few, for so they have paid before

QUICK = Budget(
    naive_steps=20,
    race_examples=16,
    race_steps=12,
    steps=20,
    lines=(
        (Stage(name="margin", attack=_climb(10)),),
        (
            Stage(name="walk", attack=BoundaryWalk(steps=30, starts=1), fraction=0.2),
            Stage(name="walks", attack=BoundaryWalk(steps=40, starts=3)),
        ),
        (Stage(name="cross-entropy", attack=_climb(20, cross_entropy), fraction=0.5, repeats_naive=True),),
        (Stage(name="nearest class", attack=_aimed(20, 1), fraction=0.2),),
        (Stage(name="restarts", attack=_climb(20, restarts=3), fraction=0.1),),
    ),
    black_box_queries=300,
    draws=8,
    control_examples=16,
    relaxation=0,
)

STANDARD = Budget(
    naive_steps=40,
    race_examples=32,
    race_steps=20,
    steps=40,
    lines=(
        (
            Stage(name="margin", attack=_climb(10), fraction=0.1),
            Stage(name="margin on all", attack=_climb(20)),
        ),
        (Stage(name="cross-entropy", attack=_climb(20, cross_entropy), repeats_naive=True),),
        (
            Stage(name="walk", attack=BoundaryWalk(steps=30, starts=1), fraction=0.2),
            Stage(name="walks", attack=BoundaryWalk(steps=40, starts=5)),
            Stage(name="more walks", attack=BoundaryWalk(steps=40, starts=4, first=5)),
        ),
        (
            Stage(name="nearest class", attack=_aimed(20, 1), fraction=0.2),
            Stage(name="all classes", attack=_aimed(20, ALL_CLASSES)),
            Stage(name="all classes, longer", attack=_aimed(50, ALL_CLASSES)),
            Stage(name="all classes, long", attack=_aimed(100, ALL_CLASSES)),
        ),
        # Of so few the share that falls says little about the rest: nothing follows these.
        (Stage(name="restarts", attack=_climb(20, restarts=3), fraction=0.07, unless="walks"),),
        (Stage(name="long run", attack=_climb(100), fraction=0.025),),
        (
            Stage(
                name="last walks",
                attack=BoundaryWalk(steps=30, starts=3),
                fraction=0.05,
                given="walk",
                unless="walks",
            ),
        ),
        (Stage(name="random search", attack=Square(queries=1000), fraction=0.04, unless="walks"),),
    ),
    black_box_queries=1500,
    draws=16,
    control_examples=32,
    relaxation=400_000,
)

THOROUGH = Budget(
    naive_steps=40,
    race_examples=32,
    race_steps=20,
    steps=100,
    lines=(
        (Stage(name="long margin", attack=_climb(100)),),
        (Stage(name="long cross-entropy", attack=_climb(100, cross_entropy)),),
        (Stage(name="long walks", attack=BoundaryWalk(steps=100, starts=9)),),
        (Stage(name="every class", attack=_aimed(50, 9)),),
        (Stage(name="twenty restarts", attack=_climb(50, restarts=20), fraction=0.3),),
        (Stage(name="long random search", attack=Square(queries=5000), fraction=0.5),),
    ),
    black_box_queries=10000,
    draws=64,
    control_examples=64,
    relaxation=20_000_000,
    after=STANDARD,
)

BUDGETS: dict[str, Budget] = {"quick": QUICK, "standard": STANDARD, "thorough": THOROUGH}


def budget_named(name: str) -> Budget:
    """The budget of that name."""
    if name not in BUDGETS:
        raise UnusableInput(f"the budget is {name!r}; choose one of {', '.join(BUDGETS)}")
    return BUDGETS[name]


@dataclass(frozen=True)
class Step:
    """One line of the report. `fraction` is of the examples not yet broken, those nearest to breaking."""

    name: str
    recipe: str
    attack: Attack
    fraction: float = 1.0


def step_of(stage: Stage, label: str, setting: Setting) -> Step | None:
    """A stage for the network at hand, along the gradient of that label; None where it has nothing to do."""
    if stage.repeats_naive and label == "exact":
        return None
    attack = stage.attack.fit(setting)
    if attack is None:
        return None
    on = "" if stage.fraction == 1 else f" on the {stage.fraction:.0%} nearest to breaking"
    who = f", {label}" if attack.needs_gradient else ""
    recipe = f"{stage.name}: {attack.describe()}{on}{who}"
    return Step(f"{label}/{stage.name}", recipe, attack, stage.fraction)


def first_step(
    budget: Budget, label: str, gradient: GradientEstimator, objective: Objective, early_stop: bool
) -> Step:
    """A repaired gradient on everything, long enough for steps and staircases."""
    attack = APGD(steps=budget.steps, gradient=gradient, objective=objective, early_stop=early_stop)
    return Step(f"{label}/all {budget.steps}", f"{attack.describe()}, {label}", attack)


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
        recipe = f"momentum PGD-{steps} of {words}{name}, {label}"
        yield Step(f"{label}/momentum {steps}{name}", recipe, attack)


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
        yield Step(f"{label}/joint {steps} {rule}", f"{attack.describe()}, {label}", attack)
    # A score has a unit of its own: over several weights one fits. Confidence beyond the least is worth nothing.
    for weight in (1.0, 10.0, 100.0):
        both = Undetected(Confident(margin, 1.0), weight)
        attack = APGD(steps=steps, restarts=2, gradient=gradient, objective=both, early_stop=early_stop)
        words = f"{attack.describe()}, detector weighed {weight:g}, {label}"
        yield Step(f"{label}/detector {steps} {weight:g}", words, attack)
    if classes < 3:
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
    labels = RayS(queries=queries) if isinstance(threat, Linf) else HopSkipJump(queries=queries)
    stages = [Stage(name=f"square all {queries}", attack=Square(queries=queries))]
    stages += [Stage(name=f"decision {queries}", attack=labels)]
    stages += [Stage(name=f"substitute {queries}", attack=Substitute())] if substitute else []
    for stage in stages:
        attack = stage.attack.fit(setting)
        if attack is not None:
            yield Step(stage.name, attack.describe(), attack)


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
