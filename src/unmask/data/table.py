"""A `.csv` of picture files and their labels."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnusableInput, first_line
from .pictures import Size, stack
from .sample import places

PATHS = ("path", "file", "filename", "file_name", "image", "img")
LABELS = ("label", "labels", "class", "target", "y", "class_name", "category")


def read_table(
    path: Path, examples: int | None, seed: int | None, size: Size
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...]]:
    """Pictures, labels, their places and class names of a table with a header. Files are looked for beside the table.

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
    if file_column is None or label_column is None:
        raise UnusableInput(
            f"{path} has the columns {', '.join(map(str, header)) or '(none)'}; it needs a header with path and label"
        )
    texts = [(row[label_column] or "").strip() for row in rows]
    names: tuple[str, ...] = ()
    if all(text.lstrip("-").isdecimal() for text in texts):
        labels = np.array([int(text) for text in texts])
    else:
        names = tuple(sorted(set(texts)))
        labels = np.array([names.index(text) for text in texts])
    chosen = places(labels, examples, seed, str(path))

    def pictures() -> Iterator[tuple[str, Any]]:
        from PIL import Image

        for n in chosen:
            where = path.parent / rows[n][file_column]
            try:
                with Image.open(where) as image:
                    image.load()
                    yield f"row {n + 1}", image
            except (OSError, SyntaxError, ValueError) as error:
                raise UnusableInput(
                    f"row {n + 1} of {path}: {where} cannot be read ({first_line(error)})"
                ) from error

    return stack(pictures(), size, str(path)), labels[chosen], chosen, names
