"""Coverage and mean width of the interval of robust accuracy, on networks of known accuracy.

Images have failure rates from a distribution of known mean, and each is judged on some draws, as an audit does it.
Beside `mean_interval` stands the interval that audits gave before: Clopper-Pearson of the rounded sum. One draw is a
network without randomness.

    python benchmarks/interval_coverage.py [AUDITS]
"""

from __future__ import annotations

import sys

import numpy as np

from unmask.statistics import clopper_pearson, mean_interval

# Beta distributions of the failure rate: how images differ, and its two parameters.
KINDS = {
    "always or never": (0.2, 0.2),
    "alike": (8.0, 2.0),
    "exactly alike": (2e5, 8e5),
    "hardly ever": (0.05, 4.0),
}


def main(audits: int) -> None:
    """Prints one line a cell."""
    rng = np.random.default_rng(0)
    print(
        f"{audits} audits a cell; two standard errors of coverage at 95 %: {2 * (0.95 * 0.05 / audits) ** 0.5:.3f}"
    )
    print("images  draws  failure rates      coverage  width   before: coverage  width")
    for images in (20, 100, 500):
        for kind, (a, b) in KINDS.items():
            for draws in (1, 4, 16, 64):
                truth = b / (a + b)
                right = 1 - rng.binomial(draws, rng.beta(a, b, (audits, images))) / draws
                cells = []
                for interval in (mean_interval, lambda values: clopper_pearson(values.sum(), len(values))):
                    low, high = np.array([interval(values) for values in right]).T
                    cells.append((((low <= truth) & (truth <= high)).mean(), (high - low).mean()))
                (now, width), (before, wide) = cells
                row = f"{images:6d}  {draws:5d}  {kind:17s}  {now:8.3f}  {width:.4f}"
                print(f"{row}  {before:16.3f}  {wide:.4f}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
