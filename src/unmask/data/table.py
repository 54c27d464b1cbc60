"""A `.csv` of picture files and their labels, or of numbers and labels."""

from __future__ import annotations

import csv
import re
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

# What stands between cells, the usual one first.
DELIMITERS = ",;\t|"
# A column without a name, as pandas writes and reads its index.
_UNNAMED = re.compile(r"(unnamed: \d+(\.\d+)*)?", re.IGNORECASE)
# Bytes that a number takes at most: while its array grows, and as float32; and after how many rows that is looked at.
_HELD, _OFTEN = 2 * 8 + 4, 1000
_TOLD = 10  # names of classes that a note shows


def read_table(
    path: Path, choose: Choice, size: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, ...], list[str]]:
    """Pictures, labels, their places, class names and notes of a table with a header. Files lie beside the table.

    Where no column names files, all others hold numbers: vectors of all rows, and no places. An index that pandas wrote
    in front is none of them. Cells are parted by commas, or by what else stands between the header's names.

    Labels are whole numbers, or names, which are numbered in alphabetical order.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            delimiter = _delimiter(file.readline())
            file.seek(0)
            header, texts, cells, notes = _rows(csv.reader(file, delimiter=delimiter), path, delimiter)
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
        notes.append(f"labels of {path} are names, numbered in alphabetical order: {_numbered(names)}")
    if isinstance(cells, array):
        x = np.frombuffer(cells).reshape(len(texts), len(header) - 1)
        features = [c for n, c in enumerate(header) if n != _place_of(LABELS, header)]
        while x.shape[1] > 1 and _UNNAMED.fullmatch(features[0]) and _is_index(x[:, 0]):
            notes.append(
                f"the first column of {path} has no name and numbers the rows, as pandas writes its index: it is left "
                "out"
            )
            x, features = x[:, 1:], features[1:]
        return x, labels, None, names, notes
    files, chosen = cells, choose(labels)

    def pictures() -> Iterator[tuple[str, Any]]:
        for n in chosen:
            where = path.parent / files[n]
            yield f"row {n + 1}", opened(where, f"row {n + 1} of {path}: {where}")

    return stack(pictures(), size, str(path), len(chosen)), labels[chosen], chosen, names, notes


def _delimiter(line: str) -> str:
    """What stands between the names of a header: what makes one of them a label's, and else the most."""

    def parted(delimiter: str) -> tuple[bool, int]:
        names = next(csv.reader([line], delimiter=delimiter), [])
        return any(name.strip().lower() in LABELS for name in names), len(names)

    return max(DELIMITERS, key=parted)


def _numbered(names: tuple[str, ...]) -> str:
    """`0 cat, 1 dog`; of many the first ones.

    >>> _numbered(("cat", "dog"))
    '0 cat, 1 dog'
    """
    return ", ".join(f"{n} {name}" for n, name in enumerate(names[:_TOLD])) + ", …" * (len(names) > _TOLD)


def _place_of(names: tuple[str, ...], header: list[str]) -> int | None:
    return next((n for n, c in enumerate(header) if c.lower() in names), None)


def _is_index(column: np.ndarray) -> bool:
    """Whether numbers are distinct, whole and none negative; rows may come in any order, and some may be gone."""
    whole = bool((column >= 0).all()) and bool((column == np.floor(column)).all())
    return whole and len(np.unique(column)) == len(column)


def _rows(
    reader: Iterator[list[str]], path: Path, delimiter: str
) -> tuple[list[str], list[str], list[str] | array[float], list[str]]:
    """Header, labels, files or, row by row, all numbers, and notes.

    **Raises** `UnusableInput` at the first cell that is no number, and where they are about to take more than this
    machine's memory.
    """
    header = [name.strip() for name in next(reader, [])]
    label = _place_of(LABELS, header)
    if label is None:
        raise UnusableInput(
            f"{path} has the columns {', '.join(header) or '(none)'}; it needs a header with path and label, or "
            "numbers and label"
        )
    place = _place_of(PATHS, header)
    texts: list[str] = []
    files: list[str] = []
    numbers = array("d")
    commas = False
    for row in reader:
        if not row:
            continue
        row += [""] * (len(header) - len(row))
        texts.append(row[label].strip())
        if place is not None:
            files.append(row[place])
            continue
        called = f"row {len(texts)} of {path}"
        commas |= _add_numbers(numbers, row, header, label, called, decimal_commas=delimiter != ",")
        if len(texts) % _OFTEN == 0:
            refuse_what_exceeds_memory(
                _HELD * len(numbers),
                f"the first {len(texts)} rows of {path} alone take",
                STREAMED.format("x and y"),
            )
    notes = (
        [f"{path} is parted by {delimiter!r}, and its decimal commas are read as points"] if commas else []
    )
    return header, texts, numbers if place is None else files, notes


def _add_numbers(
    numbers: array[float], row: list[str], header: list[str], label: int, called: str, *, decimal_commas: bool
) -> bool:
    """Adds a row; whether a decimal comma was met, which is read where cells are not parted by commas."""
    met = False
    for n, column in enumerate(header):
        if n == label:
            continue
        cell = row[n]
        if decimal_commas and cell.count(",") == 1 and "." not in cell:
            cell, met = cell.replace(",", "."), True
        try:
            numbers.append(float(cell))
        except ValueError as error:
            raise UnusableInput(
                f"{called} has {row[n]!r} in the column {column or '(unnamed)'}; give numbers beside the label, or a "
                "column path with picture files"
            ) from error
    return met
