"""A `.csv` of picture files and their labels, or of numbers and labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnusableInput, first_line
from .pictures import Size, opened, stack
from .sample import places

PATHS = ("path", "file", "filename", "file_name", "image", "img")
LABELS = (
    "label",
    "labels",
    "class",
    "target",
    "y",
    "class_name",
    "category",
    "species",
    "diagnosis",
    "quality",
)


def read_table(
    path: Path, examples: int | None, seed: int | None, size: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Pictures, labels, their places and class names of a table with a header. Files are looked for beside the table.

    Where no column names files, all others hold numbers: vectors of all rows, and no places.

    Labels are whole numbers, or names, which are numbered in alphabetical order.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableInput(
            f"{path} cannot be read as a table ({first_line(error)}); save it as UTF-8"
        ) from error
    header = list(rows[0]) if rows else []
    file_column = next((c for c in header if str(c).lower() in PATHS), None)
    label_column = next((c for c in header if str(c).lower() in LABELS), None)
    if label_column is None:
        raise UnusableInput(
            f"{path} has the columns {', '.join(map(str, header)) or '(none)'}; it needs a header with path and "
            "label, or numbers and label"
        )
    texts = [(row[label_column] or "").strip() for row in rows]
    names: tuple[str, ...] = ()
    if all(text.lstrip("-").isdecimal() for text in texts):
        labels = np.array([int(text) for text in texts])
    else:
        names = tuple(sorted(set(texts)))
        labels = np.array([names.index(text) for text in texts])
    if file_column is None:
        return _numbers(rows, [c for c in header if c != label_column], path), labels, None, names
    chosen = places(labels, examples, seed, str(path))

    def pictures() -> Iterator[tuple[str, Any]]:
        for n in chosen:
            where = path.parent / rows[n][file_column]
            yield f"row {n + 1}", opened(where, f"row {n + 1} of {path}: {where}")

    return stack(pictures(), size, str(path), len(chosen)), labels[chosen], chosen, names


def _numbers(rows: list[dict[str, str]], columns: list[str], path: Path) -> np.ndarray:
    """`[rows, columns]`, float64. **Raises** `UnusableInput` at the first cell that is no number."""
    found = np.empty((len(rows), len(columns)))
    for n, row in enumerate(rows):
        for k, column in enumerate(columns):
            try:
                found[n, k] = float(row[column])
            except (TypeError, ValueError) as error:
                raise UnusableInput(
                    f"row {n + 1} of {path} has {row[column]!r} in the column {column}; give numbers beside the label, "
                    "or a column path with picture files"
                ) from error
    return found
