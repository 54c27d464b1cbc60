"""What the rows of this reproduction look like."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from unmask.training import RobustAndWeakFeatures

Row = dict[str, Any]
TOY: dict[str, Any] = {"p": 0.95, "eta": 0.3, "weak": 100}


def plots(done: dict[str, Row]) -> dict[str, Figure]:
    """Robust accuracy against the time it took, the frontier of TRADES, the toy model: those whose rows are there."""
    recipes = {n.removeprefix("accuracy: "): r for n, r in done.items() if n.startswith("accuracy: ")}
    timed = {name: r for name, r in recipes.items() if "training_seconds" in r}
    traded = {n.removeprefix("trade-off: "): r for n, r in done.items() if n.startswith("trade-off")}
    frontier = {n.removeprefix("TRADES, "): r for n, r in traded.items() if n != "pgd"}
    toy = {n: r for n, r in done.items() if n.startswith("toy model")}
    figures: dict[str, Figure] = {}
    if timed:
        figures["accuracy_per_minute.png"] = per_minute(timed)
    if frontier:
        also = {n: r for n, r in traded.items() if n == "pgd"}
        figures["trades_frontier.png"] = trade_off(frontier, also)
    if toy:
        figures["toy_model.png"] = theory_and_training(toy)
    return figures


def per_minute(recipes: dict[str, Row]) -> Figure:
    """Robust accuracy over the processor time of the whole training."""
    figure, axes = canvas("minutes of training on one core", "robust accuracy")
    points = {name: (row["training_seconds"] / 60, row) for name, row in recipes.items()}
    with_intervals(axes, points)
    in_minutes(axes, [minutes for minutes, _ in points.values()])
    return figure


def curves(recipes: dict[str, list[Row]]) -> Figure:
    """Robust accuracy over the processor time of the whole training: a line per recipe, a point per length.

    The band holds what lies within two points of the longest PGD training.
    """
    figure, axes = canvas("minutes of processor time for the whole training", "robust accuracy")
    for name, unsorted in recipes.items():
        rows = sorted(unsorted, key=lambda row: row["training_seconds"])
        spent, robust = [r["training_seconds"] / 60 for r in rows], [r["robust"] for r in rows]
        low, high = ([abs(r["interval"][end] - r["robust"]) for r in rows] for end in (0, 1))
        axes.errorbar(spent, robust, [low, high], fmt="o-", capsize=2, label=name, alpha=0.8)
    if "pgd" in recipes:
        reached = max(recipes["pgd"], key=lambda row: row["training_seconds"])["robust"]
        axes.axhspan(reached - 0.02, reached, color="grey", alpha=0.15)
    axes.legend(fontsize=8)
    in_minutes(axes, [r["training_seconds"] / 60 for rows in recipes.values() for r in rows])
    return figure


def in_minutes(axes: Any, spent: list[float]) -> None:
    """A logarithmic axis with plain numbers."""
    axes.set_xscale("log")
    axes.set_xlim(min(spent) / 1.7, max(spent) * 1.7)
    ticks = [t for t in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10) if min(spent) / 2 < t < max(spent) * 2]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xticks([], minor=True)


def trade_off(frontier: dict[str, Row], also: dict[str, Row]) -> Figure:
    """Clean and robust accuracy, beta by beta."""
    figure, axes = canvas("clean accuracy", "robust accuracy")
    axes.plot([r["clean"] for r in frontier.values()], [r["robust"] for r in frontier.values()], alpha=0.4)
    with_intervals(axes, {name: (row["clean"], row) for name, row in {**frontier, **also}.items()})
    return figure


def theory_and_training(toy: dict[str, Row]) -> Figure:
    """The toy model's closed forms over epsilon, and the trained weights at the radii of the rows."""
    figure, axes = canvas("epsilon", "accuracy")
    model, radii = RobustAndWeakFeatures(**TOY), [0.01 * n for n in range(81)]
    first = torch.tensor([1.0] + [0.0] * TOY["weak"])
    for name, weights, kind, colour in (
        ("best without an adversary", model.natural(), "standard", "tab:blue"),
        ("the robust feature alone", first, "pgd", "tab:orange"),
    ):
        exact = [model.accuracy(weights, epsilon=e) for e in radii]
        axes.plot(radii, exact, color=colour, label=f"{name}, closed form")
        points = [(float(n.rpartition(" ")[2]), r["exact"]) for n, r in toy.items() if f" {kind}," in n]
        axes.plot(*zip(*points, strict=True), "o", color=colour, label=f"{kind} training")
    axes.axvline(2 * TOY["eta"], color="grey", linestyle=":", linewidth=1)
    axes.legend(fontsize=8)
    return figure


def canvas(across: str, up: str) -> tuple[Figure, Any]:
    """An empty figure with named axes."""
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=across, ylabel=up)
    axes.grid(alpha=0.3)
    return figure, axes


def with_intervals(axes: Any, points: dict[str, tuple[float, Row]]) -> None:
    """Robust accuracies with their 95 % intervals."""
    for name, (x, row) in sorted(points.items(), key=lambda p: p[1][0]):
        low, high = row["interval"]
        error = [[row["robust"] - low], [high - row["robust"]]]
        axes.errorbar([x], [row["robust"]], error, fmt="o", capsize=2, label=name)
    axes.legend(fontsize=8)
