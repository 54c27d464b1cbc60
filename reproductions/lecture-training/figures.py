"""What the rows of this reproduction look like."""

from __future__ import annotations

from typing import Any

import torch
from matplotlib.figure import Figure

from unmask.training import RobustAndWeakFeatures

Row = dict[str, Any]
TOY: dict[str, Any] = {"p": 0.95, "eta": 0.3, "weak": 100}


def plots(done: dict[str, Row]) -> dict[str, Any]:
    """Robust accuracy against the time it took, the frontier of TRADES, the toy model: those whose rows are there."""
    figures: dict[str, Any] = {}

    def new(stem: str, **labels: str) -> Any:
        figures[f"{stem}.png"] = figure = Figure(figsize=(5.5, 3.6), layout="constrained")
        axes = figure.add_subplot()
        axes.set(**labels)
        axes.grid(alpha=0.3)
        return axes

    def with_interval(axes: Any, x: float, row: Row, name: str, below: bool = False) -> None:
        low, high = row["interval"]
        error = [[row["robust"] - low], [high - row["robust"]]]
        axes.errorbar([x], [row["robust"]], error, fmt="o", capsize=2)
        axes.annotate(
            name, (x, row["robust"]), xytext=(5, -11 if below else 5), textcoords="offset points", fontsize=8
        )

    recipes = {n.removeprefix("accuracy: "): r for n, r in done.items() if n.startswith("accuracy: ")}
    if recipes:
        axes = new("accuracy_per_minute", xlabel="minutes of training, one core", ylabel="robust accuracy")
        axes.set_xscale("log")
        for number, (name, row) in enumerate(recipes.items()):
            with_interval(axes, row["training_seconds"] / 60, row, name, below=number % 2 == 1)
    frontier = {n.rpartition(" ")[2]: r for n, r in done.items() if n.startswith("trade-off")}
    if frontier and "trades" in recipes:
        frontier["6"] = recipes["trades"]
        axes = new("trades_frontier", xlabel="clean accuracy", ylabel="robust accuracy")
        axes.plot(
            [r["clean"] for r in frontier.values()], [r["robust"] for r in frontier.values()], "-", alpha=0.4
        )
        for beta, row in frontier.items():
            with_interval(axes, row["clean"], row, f"beta {beta}")
        if "pgd" in recipes:
            with_interval(axes, recipes["pgd"]["clean"], recipes["pgd"], "pgd", below=True)
    if toy := {n: r for n, r in done.items() if n.startswith("toy model")}:
        radii = [0.01 * n for n in range(81)]
        model = RobustAndWeakFeatures(**TOY)
        axes = new("toy_model", xlabel="epsilon", ylabel="accuracy")
        for name, weights, style in (
            ("best without an adversary", model.natural(), "tab:blue"),
            ("the robust feature alone", torch.tensor([1.0] + [0.0] * TOY["weak"]), "tab:orange"),
        ):
            axes.plot(
                radii,
                [model.accuracy(weights, epsilon=e) for e in radii],
                color=style,
                label=f"{name}, theory",
            )
        for kind, colour in (("standard", "tab:blue"), ("pgd", "tab:orange")):
            points = [(float(n.rpartition(" ")[2]), r["exact"]) for n, r in toy.items() if f" {kind}," in n]
            axes.plot(*zip(*points, strict=True), "o", color=colour, label=f"{kind} training")
        axes.axvline(2 * TOY["eta"], color="grey", linestyle=":", linewidth=1)
        axes.legend(fontsize=8)
    return figures
