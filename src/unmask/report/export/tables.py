"""A report's lists as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from ...audit.records import Report, ReportPart


def tables(report: Report) -> dict[str, str]:
    """CSV texts by file name: attacks, controls, findings, and the two curves. Empty lists give a header alone."""
    return {
        "attacks.csv": _table(
            "recipe robust_accuracy newly_broken forwards backwards seconds", report.attacks
        ),
        "controls.csv": _table("name passed value expected decisive", report.controls),
        "findings.csv": _table("mechanism operation file line code symptom repair", report.masking),
        "accuracy_against_epsilon.csv": _table("epsilon accuracy", report.accuracy_against_epsilon),
        "accuracy_against_cost.csv": _table("forwards backwards accuracy", report.accuracy_against_cost),
    }


def _table(columns: str, rows: Iterable[ReportPart]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns.split())
    for row in rows:
        writer.writerow(getattr(row, column) for column in columns.split())
    return text.getvalue()
