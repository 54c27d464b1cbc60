"""The numbers of a claim: plain, as fractions, or one for each channel or feature."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from ..errors import first_line


def parse_number(text: str) -> float:
    """A finite number, plain or as a fraction. **Raises** `ValueError` with the way out.

    >>> parse_number("0.3"), parse_number("8/255") == 8 / 255
    (0.3, True)
    """
    try:
        top, slash, bottom = text.partition("/")
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no number; give one such as 0.3 or 8/255")
    return value


def _number(value: object) -> object:
    return parse_number(value) if isinstance(value, str) else value


def _radius(value: object) -> object:
    """One radius, or one for each channel or feature: as a list, in text with commas, or in a file of numbers."""
    if isinstance(value, str) and "," in value:
        value = value.split(",")
    elif isinstance(value, str) and value.strip().lower().endswith(FILES):
        value = read_radii(value.strip())
    if isinstance(value, bool):
        raise ValueError(f"{value} is no radius; give at least 0, for instance 8/255")
    if isinstance(value, list):
        return [float(v) if isinstance(v, int) and not isinstance(v, bool) else _number(v) for v in value]
    return _number(value)


def _zero_or_larger(value: float | list[float]) -> float | list[float]:
    each = value if isinstance(value, list) else [value]
    if not each or not all(0 <= v < math.inf for v in each):
        raise ValueError(f"{value} is no radius; give at least 0, for instance 8/255")
    return value


def read_radii(place: str) -> list[float]:
    """The radii in a `.npy` file, or in one of text, apart by commas or blanks. **Raises** `ValueError`."""
    try:
        if place.lower().endswith(".npy"):
            import numpy as np

            return [float(v) for v in np.load(Path(place).expanduser(), allow_pickle=False).flatten()]
        text = Path(place).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{place} cannot be read ({first_line(error)}); give a .npy or text file of radii"
        ) from error
    return [parse_number(part) for part in text.replace(",", " ").split()]


FILES = (".npy", ".csv", ".txt")  # of radii
FRACTION = {"type": "string", "pattern": r"^\s*[-+0-9.eE]+\s*(/\s*[-+0-9.eE]+\s*)?$"}
Radii = Annotated[
    float | list[float],
    BeforeValidator(_radius),
    AfterValidator(_zero_or_larger),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string"},
                {
                    "type": "array",
                    "minItems": 1,
                    "items": {"anyOf": [{"type": "number", "minimum": 0}, FRACTION]},
                },
            ]
        }
    ),
]
Share = Annotated[
    float,
    BeforeValidator(_number),
    Field(ge=0, le=1),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, FRACTION]}),
]
