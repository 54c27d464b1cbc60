"""`claim.toml`: the formal threat model and the concrete claim of a defence, in a file that one command audits."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..errors import UnusableInput, first_line
from .record import Claim as Claim
from .toml import example_of

if TYPE_CHECKING:  # a wrong option is told before torch is loaded
    from ..threat import ThreatModel


def read_claim(path: Path) -> Claim:
    """The claim in a TOML file; keys with dashes or underscores. A file it names is looked for beside it first.

    **Raises** `UnusableInput` with one line: the key, its value, the way out.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusableInput(
            f"{path} cannot be read as a claim ({first_line(error)}); give a TOML file, or have unmask claim new "
            "write one"
        ) from error
    values: dict[str, Any] = {}
    for key, value in content.items():
        name = key.replace("-", "_")
        if name in values:
            raise UnusableInput(f"{path} states {name} twice, with a dash and without; keep one")
        values[name] = value
    beside_it = path.parent / str(values.get("epsilon"))
    if isinstance(values.get("epsilon"), str) and beside_it.is_file():
        values["epsilon"] = str(beside_it)
    claim = parse_claim(values, str(path))
    if not claim.target:
        raise UnusableInput(_missing("target", str(path)))

    def beside(spec: str) -> str:
        file, separator, rest = spec.partition(":")
        found = path.parent / file
        return f"{found}{separator}{rest}" if file and found.exists() else spec

    places: dict[str, Any] = {"target": beside(claim.target), "attack": [beside(a) for a in claim.attack]}
    places["box"] = beside(claim.box) if isinstance(claim.box, str) else claim.box
    if "data" in claim.model_fields_set:
        places["data"] = beside(claim.data)
    stated = claim.model_fields_set
    return claim.model_copy(update={k: v for k, v in places.items() if k in stated})


def parse_claim(values: Mapping[str, Any], where: str | None) -> Claim:
    """Validates what stands in `where`; None is the command line, whose keys are spelt as its options.

    **Raises** `UnusableInput` with one line for the first defect.
    """
    try:
        return Claim.model_validate(dict(values))
    except ValidationError as error:
        # A key that is unknown explains one that is missing.
        first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
        raise UnusableInput(_line(first, where)) from error


def claim_about(threat: ThreatModel, **options: Any) -> Claim:
    """The claim about a threat model, with the other fields of `Claim` by name.

    **Raises** `UnusableInput` with one line for the first option that cannot be.
    """
    ball = {
        "norm": threat.norm,
        "epsilon": getattr(threat, "radii", None) or threat.epsilon,
        "goal": threat.goal,
    }
    return parse_claim({**ball, **options}, "the call")


def _line(error: ErrorDetails, where: str | None) -> str:
    name, problem, kind = str(error["loc"][0]), error["msg"], error["type"]
    if kind == "extra_forbidden":
        keys = ", ".join(Claim.model_fields)
        return f"{where} has the unknown key {name!r}; the keys are {keys}"
    if kind == "missing":
        return _missing(name, where)
    example = example_of(name)
    named, value = f"{name} of {where}", f"{name} of {where} is {error['input']!r}"
    if where is None:
        named, example = f"--{name.replace('_', '-')}", example.strip('"')
        value = f"{named} is {error['input']}"
    if kind == "value_error":  # ours, with its own way out
        return f"{named}: {problem.removeprefix('Value error, ')}"
    if name == "checkpoint_hash":
        return f"{value}; give the 64 hexadecimal digits that report.json and unmask claim new write"
    if name in ("clean_accuracy", "claim", "false_positive_rate"):
        return f"{value}; give a share between 0 and 1, for instance {example}"
    if kind == "greater_than_equal":
        return f"{value}; give at least {(error.get('ctx') or {})['ge']}, for instance {example}"
    problem = problem[0].lower() + problem[1:].replace(" after validation", "")
    return f"{value}; {problem.replace('input', 'it', 1)}, for instance {example}"


def _missing(name: str, where: str | None) -> str:
    if where is None:
        example = example_of(name).strip('"')
        return f"--{name} is missing; give for instance --{name} {example}"
    return f"there is no {name} in {where}; add for instance {name} = {example_of(name)}"
