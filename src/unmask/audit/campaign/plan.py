"""The plan: what runs, in which order, on how many examples, and what must have paid before.

A `Budget` is a table of `Stage`s; `steps.py` beside this fits them to a network and `attack_runner.py` walks through
them. All figures are ours, from `benchmarks/cascade_cost.py`, which prints what each stage broke and what that cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...attacks import (
    APGD,
    Attack,
    BoundaryWalk,
    CoordinateSearch,
    SparsePGD,
    SparseRS,
    Square,
    TargetedAPGD,
)
from ...bounds import BranchAndBound
from ...errors import UnusableInput
from ...objectives import Objective, Targeted, cross_entropy, margin_loss
from ...threat import FewPixels, ThreatModel


@dataclass(frozen=True, kw_only=True)
class Stage:
    """An attack of a budget, before it is known which network it meets.

    **Fields**
    - `name`: distinct within a budget; it labels the record and names the stage's random numbers.
    - `attack`: what runs, fitted to the network by its own `fit`. Any attack will do.
    - `fraction`: share, in (0, 1], of the examples not yet broken that it runs on: those nearest to breaking.
    - `given`: a stage without whose success this one is not worth trying; it must have broken something.
    - `unless`: a stage that makes this one needless, if it ran.
    - `repeats_naive`: what the standard attack has done already where the exact gradient is the one to follow.
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
    - `lines`: stages of rising cost; each but the first only where the one before it paid (`attack_runner.PAYING`).
    - `few_pixels`: the lines where few pixels change, not all within a norm.
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
    few_pixels: tuple[Line, ...] = ()
    black_box_queries: int
    draws: int
    control_examples: int
    relaxation: int
    after: Budget | None = None

    def __post_init__(self) -> None:
        for few in (False, True):
            names = [stage.name for b in self.in_turn() for line in b._lines(few) for stage in line]
            if len(set(names)) < len(names):
                raise UnusableInput(
                    f"the stages are named {', '.join(names)}; every stage needs a name of its own"
                )

    def _lines(self, few: bool) -> tuple[Line, ...]:
        return self.few_pixels if few else self.lines

    def lines_for(self, threat: ThreatModel) -> tuple[Line, ...]:
        """The stages that suit a threat model."""
        return self._lines(isinstance(threat, FewPixels))

    def in_turn(self) -> tuple[Budget, ...]:
        """The budgets to spend, one after the other."""
        return (*self.after.in_turn(), self) if self.after else (self,)


def _climb(steps: int, objective: Objective = margin_loss, restarts: int = 1) -> APGD:
    return APGD(steps=steps, restarts=restarts, objective=objective)


def _aimed(steps: int, targets: int) -> TargetedAPGD:
    return TargetedAPGD(steps=steps, targets=targets, order="nearest", objective=Targeted())


def _pixels(steps: int, restarts: int) -> SparsePGD:
    return SparsePGD(steps=steps, restarts=restarts, objective=margin_loss)


def _coordinates(queries: int, grid: int) -> CoordinateSearch:
    return CoordinateSearch(queries=queries, grid=grid)


MANY = 9  # classes, of a thousand as of ten: what the nine nearest do not give, the others hardly do

QUICK = Budget(
    naive_steps=20,
    race_examples=16,
    race_steps=12,
    steps=20,
    lines=(
        (Stage(name="margin", attack=_climb(10)),),
        (
            Stage(name="coordinates", attack=_coordinates(1000, 16), fraction=0.2),
            Stage(name="coordinates on all", attack=_coordinates(1000, 16)),
        ),
        (
            Stage(name="walk", attack=BoundaryWalk(steps=30, starts=1), fraction=0.2),
            Stage(name="walks", attack=BoundaryWalk(steps=40, starts=3)),
        ),
        (Stage(name="cross-entropy", attack=_climb(20, cross_entropy), fraction=0.5, repeats_naive=True),),
        (
            Stage(name="nearest class", attack=_aimed(20, 1), fraction=0.2),
            Stage(name="near classes", attack=_aimed(20, 3)),
        ),
        (Stage(name="restarts", attack=_climb(20, restarts=3), fraction=0.1),),
    ),
    few_pixels=(
        (
            Stage(name="pixels", attack=_pixels(20, 2)),
            Stage(name="pixels again", attack=_pixels(20, 4)),
        ),
        (Stage(name="random search", attack=SparseRS(queries=300), fraction=0.3),),
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
        (
            Stage(name="coordinates", attack=_coordinates(1000, 16), fraction=0.2),
            Stage(name="coordinates on all", attack=_coordinates(4000, 64)),
        ),
        (Stage(name="cross-entropy", attack=_climb(20, cross_entropy), repeats_naive=True),),
        (
            Stage(name="walk", attack=BoundaryWalk(steps=30, starts=1), fraction=0.2),
            Stage(name="walks", attack=BoundaryWalk(steps=40, starts=5)),
            Stage(name="more walks", attack=BoundaryWalk(steps=40, starts=4, first=5)),
        ),
        (
            Stage(name="nearest class", attack=_aimed(20, 1), fraction=0.2),
            Stage(name="all classes", attack=_aimed(20, MANY)),
            Stage(name="all classes, longer", attack=_aimed(50, MANY)),
            Stage(name="all classes, long", attack=_aimed(100, MANY)),
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
        (Stage(name="branches", attack=BranchAndBound(branches=500, elements=300)),),
    ),
    few_pixels=(
        (
            Stage(name="pixels", attack=_pixels(40, 2)),
            Stage(name="pixels again", attack=_pixels(40, 6)),
            Stage(name="pixels, longer", attack=_pixels(100, 6)),
        ),
        (Stage(name="pixels, long run", attack=_pixels(100, 6), fraction=0.1),),
        (
            Stage(name="random search", attack=SparseRS(queries=1000), fraction=0.2),
            Stage(name="random search on all", attack=SparseRS(queries=2000)),
        ),
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
        (Stage(name="every class", attack=_aimed(50, MANY)),),
        (Stage(name="twenty restarts", attack=_climb(50, restarts=20), fraction=0.3),),
        (Stage(name="long random search", attack=Square(queries=5000), fraction=0.5),),
        (Stage(name="long coordinates", attack=_coordinates(20_000, 200)),),
        (Stage(name="many branches", attack=BranchAndBound(branches=50_000)),),
    ),
    few_pixels=(
        (Stage(name="all pixels, long", attack=_pixels(200, 10)),),
        (Stage(name="long random search", attack=SparseRS(queries=5000), fraction=0.5),),
    ),
    black_box_queries=10000,
    draws=64,
    control_examples=64,
    relaxation=20_000_000,
    after=STANDARD,
)

BUDGETS: dict[str, Budget] = {"quick": QUICK, "standard": STANDARD, "thorough": THOROUGH}


def budget_named(name: str) -> Budget:
    """The budget of that name. **Raises** `UnusableInput` with the names that there are."""
    if name not in BUDGETS:
        raise UnusableInput(f"the budget is {name!r}; choose one of {', '.join(BUDGETS)}")
    return BUDGETS[name]
