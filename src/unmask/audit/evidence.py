"""`evidence.safetensors`: every adversarial example found, so that nobody has to take our word."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..data import Data
from ..errors import UnusableInput
from ..types import Average
from .records import Report, ThreatRecord
from .runtime.journal import write_atomically

FILE, REPORT = "evidence.safetensors", "report.json"


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Adversarial examples: one for each example that ever met the adversary's goal, clean or attacked.

    With it, `robust_accuracy = 1 - failure_rate.sum() / examples`.

    **Fields**
    - `x_adv`: shaped as the data, in their box, float32. An example that is wrong without an attack is its own
      `x_adv`.
    - `index`: `[n]`, place in the split of the data set.
    - `label`: `[n]`, the true class; `prediction`: `[n]`, the class on the judge's last draw.
    - `failure_rate`: `[n]`, share of the judge's fresh draws that were misclassified, in (0, 1]; 1 if
      deterministic.
    - `targets`: `[n]`, the class to reach, or None where the goal is untargeted; else `failure_rate` counts draws that
      reach it.
    - `originals`: SHA-256 of the clean images' bytes, in the order of `index`.
    - `draws`, `passes`: the judge took so many draws, each the mean over so many forward passes.
    - `average`: what the passes became before their mean was taken; None where it is of what the network returned.
    - `threat`, `data`, `split`, `target`, `checkpoint_hash`: what was attacked, how, and on what.
    """

    x_adv: Float[Tensor, "n *dims"]
    index: Int[Tensor, " n"]
    label: Int[Tensor, " n"]
    prediction: Int[Tensor, " n"]
    failure_rate: Float[Tensor, " n"]
    originals: str
    threat: ThreatRecord
    data: str
    split: str
    target: str
    checkpoint_hash: str
    passes: int
    draws: int
    targets: Int[Tensor, " n"] | None = None
    average: Average | None = None


TENSORS = ("x_adv", "index", "label", "prediction", "failure_rate")
_WHOLE, _REAL = ("I64",), ("F32", "F64")
_DTYPES = {
    "x_adv": ("F32",),
    "index": _WHOLE,
    "label": _WHOLE,
    "prediction": _WHOLE,
    "failure_rate": _REAL,
    "targets": _WHOLE,
}


def hash_images(x: Tensor) -> str:
    """SHA-256, in hexadecimal digits, of the float32 bytes of images of any shape."""
    return hashlib.sha256(x.detach().cpu().to(torch.float32).contiguous().numpy().tobytes()).hexdigest()


def hash_labels(data: Data) -> str:
    """SHA-256 of labels and places in the split, which name each example's random numbers."""
    both = torch.stack([data.y.cpu().long(), data.index.cpu().long()])
    return hashlib.sha256(both.contiguous().numpy().tobytes()).hexdigest()


def write_evidence(folder: str | os.PathLike[str], evidence: Evidence) -> Path:
    """Writes `evidence.safetensors` into `folder`, whole or not at all."""
    names = TENSORS if evidence.targets is None else (*TENSORS, "targets")
    tensors = {name: getattr(evidence, name).detach().cpu().contiguous() for name in names}
    facts = {  # one entry, for safetensors writes several in no fixed order
        "schema": 1,
        "originals": evidence.originals,
        "threat": evidence.threat.model_dump(),
        "data": evidence.data,
        "split": evidence.split,
        "target": evidence.target,
        "checkpoint_hash": evidence.checkpoint_hash,
        "passes": evidence.passes,
        "draws": evidence.draws,
        "average": evidence.average,
    }
    path = Path(folder, FILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(tensors, {"unmask": json.dumps(facts)}))
    return path


def write_report(folder: str | os.PathLike[str] | None, report: Report) -> Path | None:
    """Writes `report.json` into `folder`, whole or not at all; nowhere where there is none."""
    if folder is None:
        return None
    path = Path(folder, REPORT)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, report.to_json().encode())
    return path


def final_draws(passes: int, *, stochastic: bool) -> int:
    """How many fresh draws the final judgement takes of each example: the rule of an audit, and of who checks one.

    One where there is no randomness. Else 64 single passes: enough for a rate to five points or so. Ours.
    """
    return max(8, 64 // passes) if stochastic else 1


def read_evidence(folder: str | os.PathLike[str], *, at_most: int | None = None) -> Evidence:
    """Reads `evidence.safetensors`, of which no more than `at_most` rows make sense.

    **Raises** `UnusableInput` where it is missing or damaged, or its tensors are of other types or sizes; these are
    looked at before a tensor is read.
    """
    path = Path(folder, FILE)
    if not path.is_file():
        raise UnusableInput(f"there is no {path}; give the folder that unmask audit wrote")
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["unmask"])
            names = (*TENSORS, *({"targets"} & set(file.keys())))
            _refuse_shapes({name: file.get_slice(name) for name in names}, at_most)
            tensors = {name: file.get_tensor(name) for name in names}
        if facts.pop("schema") != 1:
            raise ValueError("it is of another schema")
        return Evidence(**tensors, **_checked_facts(facts))
    except (
        SafetensorError,
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        OSError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise UnusableInput(
            f"{path} is damaged ({type(error).__name__}: {reason}); run the audit again"
        ) from error


def _refuse_shapes(slices: dict[str, Any], at_most: int | None) -> None:
    shapes = {name: part.get_shape() for name, part in slices.items()}
    rows = shapes["index"][0] if len(shapes["index"]) == 1 else -1
    for name, part in slices.items():
        shape, dtype = shapes[name], part.get_dtype()
        flat = name == "x_adv" or len(shape) == 1
        if not flat or not shape or shape[0] != rows or dtype not in _DTYPES[name]:
            raise ValueError(f"{name} is {dtype} {shape} beside {rows} rows")
    if at_most is not None and rows > at_most:
        raise ValueError(f"{rows} rows, but the report is about {at_most} examples")


def _checked_facts(facts: dict[str, Any]) -> dict[str, Any]:
    words = ("originals", "data", "split", "target", "checkpoint_hash")
    if not all(isinstance(facts[name], str) for name in words):
        raise ValueError(f"one of {', '.join(words)} is no text")
    for name in ("passes", "draws"):
        if type(facts[name]) is not int or not 1 <= facts[name] <= 2**31:
            raise ValueError(f"{name} is {facts[name]!r}")
    if facts.get("average") not in (None, *get_args(Average)):
        raise ValueError(f"average is {facts['average']!r}")
    return {**facts, "threat": ThreatRecord(**facts["threat"])}
