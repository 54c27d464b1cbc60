"""Defences by name, as the command line writes them: `jpeg(quality=75)`."""

from __future__ import annotations

import ast
import re
from dataclasses import MISSING, fields

from ..defenses import transforms
from ..errors import UnmaskError, UnusableInput, first_line
from .base import Defense
from .dropping import PixelDrop, TestTimeDropout
from .noise import InputNoise, WeightNoise
from .purifiers import DefenseGAN, DiffPure
from .resizing import CropEnsemble, RandomResizePad
from .sap import SAP
from .smoothing import RandomizedSmoothing

_CLASSES: tuple[type[Defense], ...] = (
    transforms.BitDepth,
    transforms.JPEG,
    transforms.TotalVariation,
    transforms.Median,
    transforms.NonLocalMeans,
    transforms.Thermometer,
    transforms.KWinners,
    transforms.LowRank,
    transforms.PixelDeflection,
    transforms.Reformer,
    DefenseGAN,
    DiffPure,
    SAP,
    InputNoise,
    WeightNoise,
    PixelDrop,
    TestTimeDropout,
    CropEnsemble,
    RandomResizePad,
    RandomizedSmoothing,
)


def name_of(defense: type[Defense]) -> str:
    """The class's name as the command line writes it.

    >>> name_of(transforms.TotalVariation), name_of(transforms.JPEG)
    ('total_variation', 'jpeg')
    """
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", defense.__name__).lower()


NAMED: dict[str, type[Defense]] = {name_of(each): each for each in _CLASSES}


def parse(text: str) -> Defense:
    """A defence from `name` or `name(field=value, …)`; values are Python literals, and nothing is run.

    **Raises** `UnusableInput` with one line that lists the names, or the fields with their defaults.

    >>> parse("jpeg(quality=50)")
    JPEG(quality=50)
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise UnusableInput(f"{text!r} is no defence; write one as in jpeg(quality=75)") from error
    function = call.func if isinstance(call, ast.Call) else call
    if not isinstance(function, ast.Name):
        raise UnusableInput(f"{text!r} is no defence; write one as in jpeg(quality=75)")
    if function.id not in NAMED:
        raise UnusableInput(f"there is no defence {function.id!r}; choose one of {', '.join(NAMED)}")
    kind = NAMED[function.id]
    if isinstance(call, ast.Call) and call.args:
        raise UnusableInput(f"{text!r} has a value without a name; write {_signature(kind)}")
    known = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    values = {}
    for keyword in call.keywords if isinstance(call, ast.Call) else ():
        if keyword.arg not in known:
            raise UnusableInput(f"{function.id} has no {keyword.arg!r}; write {_signature(kind)}")
        try:
            value = ast.literal_eval(keyword.value)
        except ValueError:
            value = None
        if not _fits(value, known[keyword.arg]):
            raise UnusableInput(
                f"{keyword.arg} of {function.id} is {ast.unparse(keyword.value)}; give a value like those in "
                f"{_signature(kind)}"
            )
        values[keyword.arg] = value
    try:
        return kind(**values)
    except UnmaskError as error:
        raise UnusableInput(f"{text!r}: {error}") from error
    except TypeError as error:
        raise UnusableInput(f"{text!r} ({first_line(error)}); write {_signature(kind)}") from error


def _fits(value: object, default: object) -> bool:
    """Whether a value is of the default's type; a whole number will do for a fraction, a word where nothing is said."""
    if default is MISSING or default is None:
        return isinstance(value, str)
    return type(value) is type(default) or (isinstance(default, float) and type(value) is int)


def _signature(kind: type[Defense]) -> str:
    shown = (
        f"{f.name}=…" if f.default is MISSING else f"{f.name}={f.default!r}"
        for f in fields(kind)  # type: ignore[arg-type]
    )
    return f"{name_of(kind)}({', '.join(shown)})"
