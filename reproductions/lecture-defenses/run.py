"""The lecture's first part: defences that do not seem to work, attacked as it says.

One table a file: `shattered.py` holds the transformations, `stochastic.py` the random defences, `detectors.py` the
detectors. `unmask reproduce lecture-defenses` runs all rows; each is saved as it ends. `roc.py` draws the detectors'
curves. `purified.py` holds reconstructions by a generative model, `explained.py` detectors that explain the prediction,
both beside the audit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unmask.reproducing.request import Request

sys.path.insert(0, str(Path(__file__).parent))

import benches
import detectors
import explained
import purified
import roc
import shattered
import stochastic

Row = dict[str, Any]
TABLES = {
    "shattered": shattered,
    "stochastic": stochastic,
    "detectors": detectors,
    "purified": purified,
    "explained": explained,
}


class Story:
    """The data, the networks and the scale of everything.

    MNIST and CIFAR-10 (JPEG), or small networks on digits, trained in seconds, and few images.
    """

    def __init__(self, request: Request):
        request.refuse("data")  # each network belongs to its own
        self.quick, self.seed = request.quick, request.seed
        found = [benches.digits()] if request.quick else [benches.mnist(), benches.cifar10()]
        self.purified = purified.bench(request)
        self.benches = [
            request.scaled(bench, examples=("attacked", "drawn", "clean"), steps=("steps",))
            for bench in found
        ]


def rows(story: Story) -> dict[str, tuple[str, Callable[[], Row]]]:
    """Name of each row, the published figure, and how to measure ours."""
    found: dict[str, tuple[str, Callable[[], Row]]] = {}
    for table, module in TABLES.items():
        for name, (published, measure) in module.rows(story).items():
            found[name] = (published, lambda table=table, measure=measure: {"table": table, **measure()})
    return found


def describe(row: Row) -> str:
    """One cell of the table."""
    return TABLES[row["table"]].describe(row)


def plots(done: dict[str, Row]) -> dict[str, Any]:
    """The detectors' ROC curves, of the rows that are there."""
    scored = {name: row for name, row in done.items() if "scores" in row}
    return {"roc.png": roc.figure(scored)} if scored else {}
