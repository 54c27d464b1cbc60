"""`claim.toml`: the formal threat model and the concrete claim of a defence, in a file that one command audits."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails

from ..errors import UnusableInput, first_line

if TYPE_CHECKING:  # a wrong option is told before torch is loaded
    from ..threat import ThreatModel


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


class Claim(BaseModel):
    """What a defence's author claims, and how it is audited: the one record of options of this package.

    Command line, claim file, `--resume` and Python all end in it, and the audit reads nothing else, so that a new
    option is a field here and the place that honours it. The descriptions of the fields are the help of `unmask
    audit`, the comments of `unmask claim new` and the text of the published schema.

    From Python the network and the data are given themselves, and `target`, `data`, `split`, `examples` and
    `allow_pickle` say nothing.

    >>> Claim(norm="linf", epsilon=0.1, claim=0.9).budget
    'standard'
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, title="claim.toml")

    target: str = Field(
        "",
        description="The network: file.py:callable or package.module:callable, called without arguments. "
        "Input [0, 1] NCHW float32, output logits.",
        examples=["my_defence.py:network"],
    )
    checkpoint_hash: str | None = Field(
        None,
        description="SHA-256 over all parameters and buffers, as in report.json; the audit refuses other weights.",
        pattern=r"^[0-9a-f]{64}$",
        examples=["0" * 64],
    )
    passes: int = Field(
        1,
        ge=1,
        description="A prediction is the mean over this many forward passes.",
        examples=[1],
    )
    average: Literal["logits", "probabilities"] | None = Field(
        None,
        description="What that mean is a mean of: logits, or probabilities, after a soft-max (default: what the "
        "network returns).",
        examples=["probabilities"],
    )
    false_positive_rate: Share | None = Field(
        None,
        description="Share of clean inputs that the defence's detector rejects, at most; leave out without a detector.",
        examples=[0.05],
    )
    data: str = Field(
        "digits",
        description="digits, mnist, cifar10, a Hugging Face data set, or a .npz or .safetensors file.",
        examples=["cifar10"],
    )
    split: str | None = Field(None, description="Split of the data set (default: test).", examples=["test"])
    examples: int | None = Field(
        None,
        ge=1,
        description="So many examples of the split, a random sample stratified by class (default: all).",
        examples=[1000],
    )
    allow_pickle: bool = Field(
        False, description="Read pickled data, which runs the code inside.", examples=[False]
    )
    norm: Literal["linf", "l2", "l1", "l0", "l0-elements", "patch"] = Field(
        description="What the adversary may do: move within a norm, linf, l2 or l1; replace epsilon pixels (l0) or "
        "elements (l0-elements) by anything; or cover a square of epsilon by epsilon pixels at any place (patch).",
        examples=["linf"],
    )
    epsilon: Radii = Field(
        description="Its radius in units of the image range, or of each feature's box, as a number or a fraction; "
        "where pixels are counted, a whole number. Several, with commas or in a .npy, .csv or .txt file: one for each "
        "channel or feature, which does not move where it is 0.",
        examples=["8/255"],
    )
    box: Annotated[list[float], Field(min_length=2, max_length=2)] | str = Field(
        [0.0, 1.0],
        description="What 0 and 1 stand for, of which epsilon is a share: smallest and largest valid value; data, the "
        "range of the data, feature by feature; or a .npz file with low and high, one for each feature or channel.",
        examples=[[0.0, 1.0]],
    )
    goal: Literal["untargeted", "targeted"] = Field(
        "untargeted",
        description="The adversary's goal: untargeted, any wrong class; targeted, a given one. Then the claimed "
        "accuracy is the share of images that no attack brings there.",
        examples=["untargeted"],
    )
    targets: Literal["random", "least-likely"] | Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Under a targeted goal, the class that each image is to be taken for: random, any other one, by "
        "the seed; least-likely, that of the smallest clean logit; or a class, and images of it are left out.",
        examples=["random"],
    )
    knowledge: Literal["white-box", "scores", "labels", "transfer"] = Field(
        "white-box",
        description="What the adversary knows: white-box, everything but the random draws; scores or labels, only "
        "the answers to queries; transfer, nothing but the data (not audited).",
        examples=["white-box"],
    )
    queries: int | None = Field(
        None,
        ge=1,
        description="Queries per image that an adversary who is told scores or labels may make; leave out for no "
        "limit.",
        examples=[10000],
    )
    adaptive: bool = Field(
        True, description="The adversary may adapt to this defence. Audits always do.", examples=[True]
    )
    clean_accuracy: Share | None = Field(
        None, description="Claimed accuracy when not under attack.", examples=[0.92]
    )
    claim: Share | None = Field(None, description="Claimed accuracy under attack.", examples=[0.45])
    attack: list[str] = Field(
        [],
        description="The author's own attacks, file.py:Name, run beside ours.",
        examples=[["my_attack.py:Mine"]],
    )
    budget: Literal["quick", "standard", "thorough"] = Field(
        "standard",
        description="How much the audit tries: quick, standard or thorough.",
        examples=["standard"],
    )
    exhaustive: bool = Field(False, description="Go on when the claim is already decided.", examples=[False])
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of all randomness.", examples=[0])
    batch_size: int = Field(256, ge=1, description="Examples per batch.", examples=[256])
    device: str | None = Field(
        None, description="cpu, cuda, cuda:1, … (default: cuda if there is one).", examples=["cpu"]
    )


# Without these, neither file nor command line says what is claimed.
REQUIRED = ("target", "norm", "epsilon")

SECTIONS: dict[str, tuple[str, ...]] = {
    "The model": ("target", "checkpoint_hash", "passes", "average", "false_positive_rate"),
    "The data": ("data", "split", "examples", "allow_pickle"),
    "The threat model": ("norm", "epsilon", "box", "goal", "targets", "knowledge", "queries", "adaptive"),
    "The claim": ("clean_accuracy", "claim"),
    "The audit": ("attack", "budget", "exhaustive", "seed", "batch_size", "device"),
}


def schema() -> dict[str, Any]:
    """The JSON schema that `docs/claim.schema.json` publishes."""
    whole = Claim.model_json_schema()
    whole["properties"]["target"].pop(
        "default"
    )  # from Python the network itself is given; a file must name it
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "description": "What a defence's author claims. Every key is honoured or refused.",
        "required": list(REQUIRED),
    }


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
    example = _example(name)
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
        example = _example(name).strip('"')
        return f"--{name} is missing; give for instance --{name} {example}"
    return f"there is no {name} in {where}; add for instance {name} = {_example(name)}"


def _example(name: str) -> str:
    examples = Claim.model_fields[name].examples
    assert examples
    return toml_value(examples[0])


def toml_value(value: Any) -> str:
    """A TOML value. JSON's strings, numbers, booleans and lists are TOML's too."""
    return json.dumps(value, ensure_ascii=False)


def to_toml(values: Mapping[str, Any]) -> str:
    """The text of a claim file: every key with its comment, those not in `values` commented out."""
    lines = ["# A claim about a defence. Audit it with: unmask audit claim.toml", ""]
    for title, names in SECTIONS.items():
        lines += [f"# --- {title}", ""]
        for name in names:
            lines += [f"# {line}" for line in wrap(Claim.model_fields[name].description or "", 108)]
            stated = name in values
            lines.append(f"{name} = {toml_value(values[name])}" if stated else f"# {name} = {_example(name)}")
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
