"""Whether what an audit left can be read at all: types, ranges and sizes, before anything is computed from them."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import UnusableInput
from ..records import Report

# A report of 500 pictures in colour takes a tenth of that; whoever writes more wants the reader's memory. Ours.
LARGEST = 256 * 2**20
# More passes a prediction than anybody has claimed (SAP: 100); each is paid twenty times over by `verify`. Ours.
MOST_PASSES = 10_000


def read_report(folder: str | os.PathLike[str]) -> Report:
    """Reads `report.json`. **Raises** `UnusableInput` where it is missing, damaged, too large or of another schema."""
    path = Path(folder, "report.json")
    if not path.is_file():
        raise UnusableInput(f"there is no {path}; give the folder that a finished unmask audit wrote")
    size = path.stat().st_size
    if size > LARGEST:
        raise UnusableInput(f"{path} has {size:,} bytes, more than any report; run the audit again")
    try:
        report = Report.model_validate_json(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnusableInput(f"{path} is not a report of schema 1 ({reason}); run the audit again") from error
    for name, value in _out_of_range(report):
        raise UnusableInput(f"{name} of {path} is {value}, which no audit writes; run the audit again")
    return report


def _out_of_range(report: Report) -> list[tuple[str, object]]:
    """Names and values of what cannot be, whatever was audited."""
    shares = {
        "claim": report.claim,
        "clean_accuracy": report.clean_accuracy,
        "robust_accuracy": report.robust_accuracy,
        "robust_accuracy_interval": report.robust_accuracy_interval[0],
        "robust_accuracy_interval, its upper end,": report.robust_accuracy_interval[1],
        "naive_robust_accuracy": report.naive_robust_accuracy,
        "certified_accuracy": report.certified_accuracy,
    }
    wrong: list[tuple[str, object]] = [
        (name, share) for name, share in shares.items() if share is not None and not 0 <= share <= 1
    ]
    counts = {
        "examples": (report.examples, 2**48),
        "passes": (report.passes, MOST_PASSES),
        "batch_size": (report.environment.batch_size, 2**48),
    }
    wrong += [(name, n) for name, (n, most) in counts.items() if not 1 <= n <= most]
    return wrong + [("epsilon", e) for e in (report.threat.epsilon,) if not 0 <= e < float("inf")]
