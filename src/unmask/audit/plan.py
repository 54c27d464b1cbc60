"""The plan: what runs, in which order, on how many examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..attacks import APGD, Attack, HopSkipJump, RayS, Square, Substitute, TargetedAPGD
from ..errors import UnusableInput
from ..gradients import EOT, GradientEstimator
from ..objectives import Objective, margin
from ..threat import Linf, ThreatModel


@dataclass(frozen=True)
class Budget:
    """How much is spent where. All figures are ours, measured in `benchmarks/cascade_cost.py`.

    **Fields**
    - `naive_steps`: of the standard attack that the report quotes as naive.
    - `race_examples`, `race_steps`: the race between candidates.
    - `steps`: of the winner's first run on all examples.
    - `restarts`: `(fraction, steps, restarts)` of later runs, on the examples nearest to breaking.
    - `targets`: `(fraction, steps, targets)` of targeted runs.
    - `queries`: `(fraction, queries)` of score-based search.
    - `draws`: cap on draws per gradient of a random network.
    - `control_examples`: on which the controls run.
    """

    naive_steps: int
    race_examples: int
    race_steps: int
    steps: int
    restarts: tuple[tuple[float, int, int], ...]
    targets: tuple[tuple[float, int, int], ...]
    queries: tuple[tuple[float, int], ...]
    black_box_queries: int
    draws: int
    control_examples: int


BUDGETS: dict[str, Budget] = {
    "quick": Budget(20, 16, 12, 20, ((0.2, 20, 2),), ((0.5, 10, 2),), ((0.02, 500),), 300, 8, 16),
    "standard": Budget(
        40,
        32,
        20,
        30,
        ((0.3, 50, 1), (0.1, 50, 3), (0.03, 50, 8)),
        ((1.0, 20, 2),),
        ((0.02, 5000),),
        1500,
        16,
        32,
    ),
    "thorough": Budget(
        100,
        64,
        40,
        100,
        ((1.0, 100, 2), (0.3, 100, 5), (0.1, 100, 10)),
        ((1.0, 100, 9),),
        ((1.0, 1000), (0.1, 10000)),
        10000,
        64,
        64,
    ),
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


def main_steps(
    budget: Budget,
    label: str,
    gradient: GradientEstimator,
    objective: Objective,
    *,
    early_stop: bool,
    classes: int,
) -> Iterator[Step]:
    """What the winner of the race runs: everything on all, then ever more effort on ever fewer."""
    common = {"gradient": gradient, "objective": objective, "early_stop": early_stop}
    yield Step(f"{label}/all", f"APGD-{budget.steps}, {label}", APGD(steps=budget.steps, **common))
    targeted = {"gradient": gradient, "early_stop": early_stop}
    for n, (fraction, steps, targets) in enumerate(budget.targets):
        if classes > 2:
            attack = TargetedAPGD(steps=steps, targets=min(targets, classes - 1), **targeted)
            yield Step(
                f"{label}/targeted {n}", f"targeted APGD-{steps} x {targets}, {label}", attack, fraction
            )
    for n, (fraction, steps, restarts) in enumerate(budget.restarts):
        attack = APGD(steps=steps, restarts=restarts, **common)
        recipe = f"APGD-{steps} x {restarts} on the {fraction:.0%} nearest to breaking, {label}"
        yield Step(f"{label}/restarts {n}", recipe, attack, fraction)


def search_steps(budget: Budget, *, early_stop: bool) -> Iterator[Step]:
    """Score-based search on the few examples nearest to breaking: it needs no gradient at all."""
    for n, (fraction, queries) in enumerate(budget.queries):
        draws = 1 if early_stop else 4
        attack = Square(queries=queries, early_stop=early_stop, draws=draws)
        yield Step(
            f"square {n}", f"Square-{queries} on the {fraction:.0%} nearest to breaking", attack, fraction
        )


def black_box_steps(budget: Budget, threat: ThreatModel, *, early_stop: bool) -> Iterator[Step]:
    """For networks whose gradient cannot be repaired, or whose repair may have missed something."""
    queries = budget.black_box_queries
    draws = 1 if early_stop else 4
    yield Step("square all", f"Square-{queries}", Square(queries=queries, early_stop=early_stop, draws=draws))
    if early_stop:
        if isinstance(threat, Linf):
            yield Step("decision", f"RayS-{queries} (labels only)", RayS(queries=queries))
        else:
            yield Step("decision", f"HopSkipJump-{queries} (labels only)", HopSkipJump(queries=queries))
    yield Step("substitute", "substitute network, transferred", Substitute(early_stop=early_stop))


def with_more_draws(gradient: GradientEstimator, draws: int) -> GradientEstimator:
    """The same estimator with another cap on its draws, if it has one."""
    return EOT(gradient.inner, max_draws=draws) if isinstance(gradient, EOT) else gradient


__all__ = [
    "BUDGETS",
    "Budget",
    "Step",
    "black_box_steps",
    "budget_named",
    "main_steps",
    "margin",
    "search_steps",
    "with_more_draws",
]
