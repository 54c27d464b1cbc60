"""Draws the pictures of docs/mechanisms.md: `python .ci/pictures.py`. Slopes are autograd's own."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
VALUE, SLOPE, GREY = "#2f6fab", "#c8553d", "#888888"


def slope(function, x):
    """The derivative that autograd gives at every point."""
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def two(name: str, function, x: torch.Tensor, title: str, said: str) -> None:
    """A function above its derivative."""
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(x, function(x), color=VALUE, lw=1.6)
    above.set_ylabel("value", color=VALUE)
    above.set_title(title, fontsize=9, color=GREY)
    below.plot(x, slope(function, x), color=SLOPE, lw=1.6)
    below.set_ylabel("gradient", color=SLOPE)
    below.set_xlabel(said, fontsize=8, color=GREY)
    save(figure, name)


def save(figure: Figure, name: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(GREY)
        axes.tick_params(colors=GREY, labelsize=8)
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(FOLDER / f"{name}.svg", transparent=True, metadata={"Date": None, "Creator": None})


def stochastic() -> None:
    """Draws of one random function, and the mean of many."""
    x = torch.linspace(0, 1, 200)
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack(
        [torch.sigmoid(12 * (x + 0.2 * torch.randn((), generator=generator) - 0.5)) for _ in range(400)]
    )
    figure = Figure(figsize=(5.2, 2.4), layout="constrained")
    axes = figure.subplots()
    for draw in draws[:5]:
        axes.plot(x, draw, color=SLOPE, lw=0.9, alpha=0.6)
    axes.plot(x, draws.mean(0), color=VALUE, lw=2)
    axes.set_xlabel("five passes at the same inputs, and the mean of 400", fontsize=8, color=GREY)
    save(figure, "stochastic")


def main() -> None:
    """All pictures."""
    FOLDER.mkdir(exist_ok=True)
    line = torch.linspace(0, 1, 400)
    two(
        "shattered",
        lambda x: torch.round(4 * x) / 4,
        line,
        "round(4 x) / 4",
        "zero at every step of an attack",
    )
    two(
        "vanishing",
        lambda x: torch.sigmoid(500 * (x - 0.5)),
        line,
        "sigmoid(500 (x - 0.5))",
        "exactly zero in float32 but near 0.5",
    )
    two("exploding", lambda x: (x - 0.5).abs().sqrt(), line, "sqrt(|x - 0.5|)", "without bound at 0.5")
    stochastic()


if __name__ == "__main__":
    main()
