"""ROC curves of the detectors' rows.

Each panel is a detector: plain PGD, where it looks good, and the least suspicious points that the adaptive attacks
found, where it falls. Only points that fool the classifier are counted.
"""

from __future__ import annotations

import math
from typing import Any

from matplotlib.figure import Figure
from sklearn.metrics import roc_curve


def figure(rows: dict[str, Any]) -> Figure:
    """One panel for each row, all of which have scores."""
    wide = min(4, len(rows))
    high = math.ceil(len(rows) / wide)
    drawn = Figure(figsize=(3 * wide, 3.1 * high), layout="constrained")
    axes = drawn.subplots(high, wide, squeeze=False)
    for panel in axes.flat[len(rows) :]:
        panel.set_visible(False)
    for panel, (name, row) in zip(axes.flat, rows.items(), strict=False):
        panel.plot([0, 1], [0, 1], color="0.8", linewidth=1)
        for kind, colour in (("pgd", "tab:blue"), ("adaptive", "tab:red")):
            scores = row["scores"]
            if not scores[kind]:
                continue
            label = [0] * len(scores["clean"]) + [1] * len(scores[kind])
            false, true, _ = roc_curve(label, scores["clean"] + scores[kind])
            words = {"pgd": "plain PGD", "adaptive": "adaptive"}[kind]
            panel.plot(false, true, color=colour, label=f"{words}, AUC {row[f'area_{kind}']:.2f}")
        panel.axvline(row["false_positive_rate"], color="0.6", linewidth=0.8, linestyle=":")
        panel.set_title(name.partition(": ")[2], fontsize=9)
        panel.legend(fontsize=7, loc="lower right")
        panel.set_xlabel("false positives", fontsize=8)
        panel.set_ylabel("detected", fontsize=8)
    return drawn
