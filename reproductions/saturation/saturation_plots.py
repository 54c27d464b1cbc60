"""Figures 1, 2 and S1, and the numbers in each."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def plots(done: dict[str, Row]) -> dict[str, Any]:
    """Figures 1, 2 and S1 of each network whose rows are there, and the numbers in each."""
    from matplotlib.figure import Figure

    figures: dict[str, Any] = {}
    for name, row in done.items():
        network = "_".join(name.partition(":")[0].split())
        figure = Figure(figsize=(4.5, 3), layout="constrained")
        if "points" in row:
            axes, points = figure.add_subplot(), row["points"]
            gains = [p["gain"] for p in points]
            axes.semilogx(gains, [1 - p["accuracy"] for p in points], "o-", color="tab:red", label="error")
            axes.semilogx(
                gains, [p["non_zero"] for p in points], "s--", color="black", label="non-zero gradients"
            )
            axes.set(xlabel="gain while the attack is made", ylabel="share", ylim=(-0.03, 1.03), title=name)
            axes.legend()
            stem, table = "figure2", points
        elif "bins" in row:
            axes, table = figure.add_subplot(), row["bins"]
            axes.bar([b["log10_from"] for b in table], [b["share"] for b in table], width=1, align="edge")
            axes.set(xlabel="log10 |gradient element|", ylabel="share of all elements")
            axes.set_title(f"{name}\nexactly zero: {100 * row['zero']:.1f} %", fontsize=9)
            stem = "figure1"
        elif "layers" in row:
            figure.set_size_inches(9, 4.5)
            for kind, place in (("weights", 0), ("activations", 1)):
                layers = [c for c in row["layers"] if c["kind"] == kind]
                for column, c in enumerate(layers):
                    axes = figure.add_subplot(2, 4, 4 * place + column + 1)
                    width = (c["high"] - c["low"]) / len(c["shares"])
                    left = [c["low"] + i * width for i in range(len(c["shares"]))]
                    axes.bar(left, c["shares"], width=width, align="edge")
                    axes.set_yscale("log")
                    axes.set_title(f"{kind} {c['layer']}, kurtosis {c['kurtosis']:.1f}", fontsize=8)
            figure.suptitle(name, fontsize=9)
            stem = "figureS1"
            table = [
                {k: c[k] for k in ("kind", "layer", "kurtosis", "low", "high")} | {"bin": i, "share": v}
                for c in row["layers"]
                for i, v in enumerate(c["shares"])
            ]
        else:
            continue
        figures[f"{stem}_{network}.png"] = figure
        figures[f"{stem}_{network}.csv"] = table
    return figures
