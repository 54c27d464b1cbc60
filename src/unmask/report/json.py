"""`report.json`."""

from __future__ import annotations

import os
from pathlib import Path

from ..audit.records import Report

FILE = "report.json"


def write_json(folder: str | os.PathLike[str], report: Report) -> Path:
    """Writes `report.json` into `folder`, whole or not at all."""
    path = Path(folder, FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{FILE}.{os.getpid()}")
    temporary.write_text(report.to_json(), encoding="utf-8")
    temporary.replace(path)
    return path
