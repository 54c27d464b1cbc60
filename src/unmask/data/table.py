"""A `.csv` of picture files and their labels, or of numbers and labels."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnusableInput, first_line
from .pictures import Size, opened, stack
from .room import STREAMED, refuse_what_exceeds_memory
from .sample import Choice

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

# Bytes that a number takes at most: while its array grows, and as float32; and after how many rows that is looked at.
_HELD, _OFTEN = 2 * 8 + 4, 1000


def read_table(
    path: Path, choose: Choice, size: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Pictures, labels, their places and class names of a table with a header. Files are looked for beside the table.

    Where no column names files, all others hold numbers: vectors of all rows, and no places.

    Labels are whole numbers, or names, which are numbered in alphabetical order.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, texts, cells = _rows(csv.reader(file), path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableInput(
            f"{path} cannot be read as a table ({first_line(error)}); save it as UTF-8"
        ) from error
    names: tuple[str, ...] = ()
    if all(text.lstrip("-").isdecimal() for text in texts):
        labels = np.array([int(text) for text in texts])
    else:
        names = tuple(sorted(set(texts)))
        number = {name: n for n, name in enumerate(names)}
        labels = np.array([number[text] for text in texts])
    if isinstance(cells, array):
        return np.frombuffer(cells).reshape(len(texts), len(header) - 1), labels, None, names
    files, chosen = cells, choose(labels)

    def pictures() -> Iterator[tuple[str, Any]]:
        for n in chosen:
            where = path.parent / files[n]
            yield f"row {n + 1}", opened(where, f"row {n + 1} of {path}: {where}")

    return stack(pictures(), size, str(path), len(chosen)), labels[chosen], chosen, names


def _rows(reader: Iterator[list[str]], path: Path) -> tuple[list[str], list[str], list[str] | array[float]]:
    """Header, labels, and files or, row by row, all numbers. **Raises** `UnusableInput` at the first cell that is none.

    Also where they are about to take more than this machine's memory.
    """
    header = next(reader, [])
    label = next((n for n, c in enumerate(header) if c.lower() in LABELS), None)
    if label is None:
        raise UnusableInput(
            f"{path} has the columns {', '.join(header) or '(none)'}; it needs a header with path and label, or "
            "numbers and label"
        )
    place = next((n for n, c in enumerate(header) if c.lower() in PATHS), None)
    texts: list[str] = []
    files: list[str] = []
    numbers = array("d")
    for row in reader:
        if not row:
            continue
        row += [""] * (len(header) - len(row))
        texts.append(row[label].strip())
        if place is not None:
            files.append(row[place])
            continue
        _add_numbers(numbers, row, header, label, f"row {len(texts)} of {path}")
        if len(texts) % _OFTEN == 0:
            refuse_what_exceeds_memory(
                _HELD * len(numbers),
                f"the first {len(texts)} rows of {path} alone take",
                STREAMED.format("x and y"),
            )
    return header, texts, numbers if place is None else files


def _add_numbers(numbers: array[float], row: list[str], header: list[str], label: int, called: str) -> None:
    for n, column in enumerate(header):
        if n == label:
            continue
        try:
            numbers.append(float(row[n]))
        except ValueError as error:
            raise UnusableInput(
                f"{called} has {row[n]!r} in the column {column}; give numbers beside the label, or a column path with "
                "picture files"
            ) from error
