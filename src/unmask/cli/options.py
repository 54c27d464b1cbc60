"""The options of `unmask audit`: from a claim file, an interrupted run, and the command line, which wins.

They are the fields of `Claim`: nothing here knows one of them by itself, but for how it is written in a terminal.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..claim.claim import Claim, parse_claim, read_claim
from ..claim.numbers import parse_number
from ..errors import UnusableInput

COMMAND = "command.json"
# What stands only in a claim file: nobody overrides what an author has promised.
PROMISES = (
    "checkpoint_hash",
    "false_positive_rate",
    "box",
    "adaptive",
    "clean_accuracy",
)
# Which examples, in which ball, with which seed and where: what `unmask bound` takes too.
LOADING = ("data", "norm", "epsilon", "examples", "split", "batch_size", "seed", "device", "allow_pickle")
OPTIONS = tuple(name for name in Claim.model_fields if name != "target" and name not in PROMISES)
SOURCE_OPTIONS = ("arch", "mean", "std", "resize", "crop", "bgr", "channels_last")
_SHAPES: dict[str, Any] = Claim.model_json_schema()["properties"]

NORMS: tuple[str, ...] = tuple(_SHAPES["norm"]["enum"])
BALLS = ("linf", "l2", "l1")  # those of them that have one radius to bracket or to train in


def number(text: str) -> float:
    """A finite number, plain or as a fraction.

    >>> number("0.3"), number("8/255") == 8 / 255
    (0.3, True)
    """
    try:
        return parse_number(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds every option that decides what is audited. Absent ones are None, for other sources to fill."""
    _add(command, OPTIONS)
    add_box(command)
    add_source_options(command)
    command.add_argument(
        "--defense",
        action="append",
        metavar="NAME(…)",
        help='put a defence in front of TARGET, for instance "jpeg(quality=75)"; may be given several times',
    )


def numbers(text: str) -> tuple[float, ...]:
    """One finite number for each channel.

    >>> numbers("0.485,0.456,0.406")
    (0.485, 0.456, 0.406)
    """
    return tuple(number(part) for part in text.split(","))


def size(text: str) -> int | tuple[int, int]:
    """Pixels: one number, or height and width.

    >>> size("224"), size("224x256")
    (224, (224, 256))
    """
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; give pixels such as 224 or 224x256")
    return int(text) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def add_source_options(command: argparse.ArgumentParser) -> None:
    """Adds those that say what stands before a network, and what class a state dict is of.

    They go into the target's own name, as defences do.
    """
    add = command.add_argument
    add("--arch", metavar="FILE:NET", help="the class of a state dict that TARGET names")
    add(
        "--mean",
        type=numbers,
        metavar="M,…",
        help="what is subtracted before the network, in units of [0, 1]",
    )
    add(
        "--std",
        type=numbers,
        metavar="S,…",
        help="what is divided by after that; 1/255 for one that takes bytes",
    )
    add("--resize", type=size, metavar="N", help="shorter side in pixels, or HxW, before that")
    add("--crop", type=size, metavar="N", help="size of the centre that is kept, or HxW")
    add("--bgr", action="store_true", default=None, help="it takes channels in the order blue, green, red")
    add(
        "--channels-last", action="store_true", default=None, help="it takes [batch, height, width, channels]"
    )


def add_box(command: argparse.ArgumentParser) -> None:
    """Adds what 0 and 1 stand for in the data."""
    command.add_argument(
        "--box",
        metavar="LOW,HIGH",
        help="what 0 and 1 stand for, of which epsilon is a share: two numbers such as 0,255; data, the data's own "
        "range feature by feature; or a .npz with low and high (default: 0,1; for what is no image its own range)",
    )


def add_loading_options(command: argparse.ArgumentParser, *, examples: str) -> None:
    """Adds those that say which examples, in the ball of which norm, with which seed and where. Absent ones are None.

    `examples` says in the help how many are taken by default.
    """
    _add(command, tuple(name for name in LOADING if name not in ("norm", "epsilon", "examples")))
    command.add_argument("--norm", choices=BALLS, help="norm of the perturbation")
    command.add_argument(
        "--epsilon",
        help="its radius in units of the image range, or of each feature's box, as a number or a fraction; several, "
        "with commas or in a .npy, .csv or .txt file: one for each channel or feature",
    )
    add_box(command)
    command.add_argument(
        "--examples",
        metavar="N",
        help=f"N examples, a random sample stratified by class (default: {examples})",
    )


def gather(arguments: argparse.Namespace, resumed: Path | None) -> Claim:
    """The claim with all its options. **Raises** `UnusableInput` for those that cannot be."""
    values: dict[str, Any] = {} if resumed is None else _stored(resumed)
    target = arguments.target
    if target is not None and target.endswith(".toml"):
        values |= _stated(read_claim(Path(target)))
        target = None
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    values |= {name: _read(name, value) for name, value in given.items() if value is not None}
    if target is not None:
        values["target"] = target
    if not values.get("target"):
        raise UnusableInput(
            "there is no target; give path/to/file.py:callable, package.module:callable or a claim.toml"
        )
    described = {name: getattr(arguments, name, None) for name in SOURCE_OPTIONS}
    described = {name: value for name, value in described.items() if value is not None}
    if described:
        from ..sources.opening import with_options  # here, for it loads torch

        values["target"] = with_options(values["target"], described)
    _fold_box(values, getattr(arguments, "box", None))
    for defence in getattr(arguments, "defense", None) or ():
        values["target"] = f"{values['target']} + {defence.strip()}"
    return parse_claim(values, None)


def _fold_box(values: dict[str, Any], typed: str | None) -> None:
    """A box goes into the data's own name, so that journal, report, `--resume` and `verify` see one name."""
    stated = values.pop("box", [0.0, 1.0])
    if typed is None and stated == [0.0, 1.0]:
        return
    from ..data.loading import with_option  # here, for it loads torch

    text = (
        typed
        if typed is not None
        else (stated if isinstance(stated, str) else ",".join(f"{side:g}" for side in stated))
    )
    values["data"] = with_option(values.get("data", Claim.model_fields["data"].default), "box", text)


def store(folder: Path, claim: Claim) -> None:
    """Keeps the options beside the journal, so that `--resume DIR` needs no others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(json.dumps(_stated(claim), indent=2) + "\n", encoding="utf-8")


def stored(folder: Path) -> Claim:
    """The options that `store` kept. **Raises** `UnusableInput` where they are missing or damaged."""
    return parse_claim(_stored(folder), str(folder / COMMAND))


def _add(command: argparse.ArgumentParser, names: Sequence[str]) -> None:
    for name in names:
        field = Claim.model_fields[name]
        text = (field.description or "").replace("%", "%%")
        if field.default and not field.is_required():
            text = f"{text.rstrip('.')} (default: {field.default})"
        spelt = f"--{name.replace('_', '-')}"
        kinds = _kinds(name)
        if kinds == {"boolean"}:
            command.add_argument(spelt, action="store_true", default=None, help=text)
        elif "array" in kinds and "number" not in kinds:
            again = f"{text.rstrip('.')}; may be given several times"
            command.add_argument(spelt, action="append", metavar=name.upper(), help=again)
        else:
            command.add_argument(spelt, choices=_SHAPES[name].get("enum"), help=text)


def _read(name: str, value: Any) -> Any:
    """What was typed, as the field has it: whole numbers are read here, everything else by the claim."""
    digits = isinstance(value, str) and value.removeprefix("-").isdecimal()
    return int(value) if digits and "integer" in _kinds(name) else value


def whole(name: str) -> bool:
    """Whether an option takes whole numbers alone."""
    return _kinds(name) - {"null"} == {"integer"}


def _kinds(name: str) -> set[str]:
    """The JSON types that a field takes."""
    shape = _SHAPES[name]
    return {kind["type"] for kind in shape.get("anyOf", [shape]) if "type" in kind}


def _stated(claim: Claim) -> dict[str, Any]:
    return claim.model_dump(mode="json", exclude_unset=True)


def _stored(folder: Path) -> dict[str, Any]:
    try:
        values = json.loads((folder / COMMAND).read_text(encoding="utf-8"))
        return {name: value for name, value in values.items() if value is not None}
    except FileNotFoundError as error:
        raise UnusableInput(f"{folder} holds no interrupted audit; give the folder named by --out") from error
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise UnusableInput(
            f"{folder / COMMAND} is damaged; give all options again beside --resume"
        ) from error
