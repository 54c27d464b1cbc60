"""The options of `unmask audit`: from a claim file, an interrupted run, and the command line, which wins."""

from __future__ import annotations

import argparse
import json
import math
import tomllib
from pathlib import Path
from typing import Any

from ..errors import UnusableInput, first_line

COMMAND = "command.json"
NORMS = ("linf", "l2", "l1")
BUDGETS = ("quick", "standard", "thorough")
DEFAULTS: dict[str, Any] = {
    "target": None,
    "data": "digits",
    "norm": None,
    "epsilon": None,
    "claim": None,
    "examples": None,
    "split": None,
    "batch_size": 256,
    "passes": 1,
    "budget": "standard",
    "exhaustive": False,
    "seed": 0,
    "device": None,
    "allow_pickle": False,
    "attack": [],
}


def number(text: str) -> float:
    """A finite number, plain or as a fraction.

    >>> number("0.3"), number("8/255") == 8 / 255
    (0.3, True)
    """
    try:
        top, slash, bottom = text.partition("/")
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError):
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; give one such as 0.3 or 8/255")
    return value


def add_options(command: argparse.ArgumentParser) -> None:
    """Adds every option that decides what is audited. Absent ones are None, for other sources to fill."""
    add = command.add_argument
    add(
        "--data",
        metavar="DATA",
        help="digits (default), mnist, cifar10, a Hugging Face data set, .npz, .safetensors",
    )
    add("--norm", choices=NORMS, help="norm of the perturbation")
    add(
        "--epsilon",
        type=number,
        metavar="EPS",
        help="its radius in units of the image range, for instance 8/255",
    )
    add("--claim", type=number, metavar="ACC", help="the claimed accuracy under attack, for instance 0.83")
    add("--examples", type=int, metavar="N", help="the first N examples (default: all)")
    add("--split", metavar="NAME", help="split of the data set (default: test)")
    add(
        "--batch-size",
        type=int,
        metavar="N",
        help="examples per batch (default: 256); halved if memory runs out",
    )
    add("--passes", type=int, metavar="K", help="the defence predicts by the mean over K passes (default: 1)")
    add("--budget", choices=BUDGETS, help="how much to try (default: standard)")
    add("--exhaustive", action="store_true", default=None, help="go on when the claim is already decided")
    add("--seed", type=int, metavar="N", help="seed of all randomness (default: 0)")
    add("--device", metavar="DEVICE", help="cpu, cuda, cuda:1, … (default: cuda if there is one)")
    add(
        "--allow-pickle",
        action="store_true",
        default=None,
        help="read pickled data, which runs the code inside",
    )
    add(
        "--attack",
        action="append",
        metavar="FILE:NAME",
        help="an attack of your own; may be given several times",
    )


def gather(arguments: argparse.Namespace, resumed: Path | None) -> dict[str, Any]:
    """All options with their values. **Raises** `UnusableInput` for those that cannot be."""
    options = dict(DEFAULTS)
    if resumed is not None:
        options |= _stored(resumed)
    target = arguments.target
    if target is not None and target.endswith(".toml"):
        options |= claim_file(Path(target))
        target = None
    given = {name: getattr(arguments, name) for name in DEFAULTS if name != "target"} | {"target": target}
    options |= {name: value for name, value in given.items() if value is not None}
    _refuse_nonsense(options)
    return options


def store(folder: Path, options: dict[str, Any]) -> None:
    """Keeps the options beside the journal, so that `--resume DIR` needs no others."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / COMMAND).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")


def claim_file(path: Path) -> dict[str, Any]:
    """Options from a TOML file: keys as on the command line, `epsilon` a number or a fraction ("8/255").

    A target or data file is looked for beside the claim file first.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableInput(
            f"{path} cannot be read as a claim ({first_line(error)}); give a TOML file"
        ) from error
    options = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name not in DEFAULTS:
            raise UnusableInput(f"{path} has the unknown key {key!r}; the keys are {', '.join(DEFAULTS)}")
        default = DEFAULTS[name]
        if name in ("epsilon", "claim"):
            try:
                value = number(str(value))
            except argparse.ArgumentTypeError as error:
                raise UnusableInput(f"{key} of {path}: {error}") from error
        elif default is not None and type(value) is not type(default):
            raise UnusableInput(f"{key} of {path} is {value!r}; give a {type(default).__name__}")
        options[name] = value
    for name in ("target", "data"):
        file, separator, rest = str(options.get(name, "")).partition(":")
        beside = path.parent / file
        if file and beside.exists():
            options[name] = f"{beside}{separator}{rest}"
    return options


def _stored(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / COMMAND).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnusableInput(f"{folder} holds no interrupted audit; give the folder named by --out") from error
    except ValueError as error:
        raise UnusableInput(
            f"{folder / COMMAND} is damaged; give all options again beside --resume"
        ) from error


def _refuse_nonsense(options: dict[str, Any]) -> None:
    if options["target"] is None:
        raise UnusableInput(
            "there is no target; give path/to/file.py:callable, package.module:callable or a claim.toml"
        )
    for name, example in (("norm", "linf"), ("epsilon", "8/255")):
        if options[name] is None:
            raise UnusableInput(
                f"--{name} is missing; state the threat model, for instance --{name} {example}"
            )
    if options["norm"] not in NORMS:
        raise UnusableInput(f"--norm is {options['norm']!r}; give one of {', '.join(NORMS)}")
    if options["budget"] not in BUDGETS:
        raise UnusableInput(f"--budget is {options['budget']!r}; give one of {', '.join(BUDGETS)}")
    if not options["epsilon"] >= 0:
        raise UnusableInput(f"--epsilon is {options['epsilon']:g}; give a number that is zero or larger")
    claim = options["claim"]
    if claim is not None and not 0 <= claim <= 1:
        raise UnusableInput(
            f"--claim is {claim:g}; give an accuracy between 0 and 1, for instance {claim / 100:g}"
        )
    for name in ("examples", "batch_size", "passes"):
        value = options[name]
        if value is not None and value < 1:
            raise UnusableInput(f"--{name.replace('_', '-')} is {value}; give at least 1")
