"""`gradients.json`: every gradient that the race tried, as records, so that a reader can spell one out by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ...diagnostics import Preflight
from ...gradients import GradientEstimator
from ...objectives import Objective
from ...remedies import Candidate
from ...target.target import Target
from ...tracing.intercept.operations import EXITS
from ...tracing.record.values import Record
from ...tracing.repair.rules import Bridge, Group, Measure, Rewrite, Rule
from ...tracing.suspect import Analysis, Suspect
from ..context import Subject
from ..runtime.journal import write_atomically
from .race import Race

FILE = "gradients.json"

Seen = Mapping[Group, Record | Suspect]


def write_entrants(
    subject: Subject,
    facts: Preflight,
    entrants: Sequence[Candidate],
    race: Race,
    analysis: Analysis,
    folder: Path | None,
) -> None:
    """Writes `gradients.json` into the audit's folder, if it has one.

    **Arguments**
    - `entrants`: all that were proposed; the race may have been over before the last of them ran.
    - `folder`: of the target's source; places are told from there.
    """
    if subject.out is None:
        return
    records = [r for a in (analysis, analysis.elsewhere) if a is not None for r in a.base.records]
    seen: dict[Group, Record | Suspect] = {r.group: r for r in reversed(records)}
    seen |= {suspect.group: suspect for suspect in analysis.everywhere}
    winners = [entrant.name for entrant in race.winners()]
    raced = len(race.entrants) > 1
    left = {e.name: 1 - float(r.mean()) for e, r in zip(race.entrants, race.rates, strict=False) if raced}
    told = [
        {
            "name": entrant.name,
            "left": left.get(entrant.name),
            "winner": winners.index(entrant.name) if entrant.name in winners else None,
            "objective": _objective(entrant.objective),
            "gradient": _estimator(entrant.gradient, seen, folder),
        }
        for entrant in entrants
    ]
    leaving = [r.group for r in records if r.name in EXITS and _leaves(r)]
    record = {
        "schema": 1,
        "reads": {
            "probabilities": subject.classifier.probabilities,
            "alone": subject.classifier.alone,
            "undisturbed": subject.classifier.undisturbed,
            "detector": facts.has_detector,
            "classes": facts.num_classes,
        },
        "leaves_torch": [_place(group, seen, folder) for group in dict.fromkeys(leaving)],
        "entrants": told,
    }
    write_atomically(subject.out / FILE, (json.dumps(record, indent=1) + "\n").encode())


def _leaves(record: Record) -> bool:
    """Whether numbers that follow the input go where autograd sees nothing."""
    return any(v.carries and v.floating and v.shape.numel() > 1 for v in record.inputs)


def source_folder(target: object) -> Path | None:
    """The folder of a target's source file, if it has one."""
    return target.source.resolve().parent if isinstance(target, Target) and target.source else None


def _objective(objective: Objective) -> str:
    inner = getattr(objective, "inner", None)
    name = getattr(objective, "__name__", type(objective).__name__)
    return name if inner is None else f"{name} {_objective(inner)}"


def _estimator(estimator: GradientEstimator, seen: Seen, folder: Path | None) -> Any:
    told: dict[str, Any] = {"kind": type(estimator).__name__}
    for field in fields(estimator):  # pyright: ignore
        value = getattr(estimator, field.name)
        if isinstance(value, GradientEstimator):
            told[field.name] = _estimator(value, seen, folder)
        elif isinstance(value, Rewrite):
            told[field.name] = _rewrite(value, seen, folder)
        elif value is None or isinstance(value, bool | int | float | str):
            told[field.name] = value
    return told


def _rewrite(rewrite: Rewrite, seen: Seen, folder: Path | None) -> dict[str, Any]:
    return {
        "rules": [_rule(group, rule, seen, folder) for group, rule in rewrite.rules.items()],
        "bridges": [_bridge(bridge, seen, folder) for bridge in rewrite.bridges],
        "heal_cuts": rewrite.heal_cuts,
        "soften": rewrite.soften,
    }


def _rule(group: Group, rule: Rule, seen: Seen, folder: Path | None) -> dict[str, Any]:
    own = {} if isinstance(rule, Measure) else {f.name: getattr(rule, f.name) for f in fields(rule)}
    return {"kind": type(rule).__name__, **own, "at": _place(group, seen, folder)}


def _bridge(bridge: Bridge, seen: Seen, folder: Path | None) -> dict[str, Any]:
    return {
        "source": _place(bridge.source, seen, folder),
        "target": _place(bridge.target, seen, folder),
        "slope": bridge.slope,
        "output": bridge.output,
        "pairing": bridge.pairing,
        "fit": list(bridge.fit),
        "argument": bridge.argument,
        "learned": bridge.surrogate is not None,
        "alone": bridge.alone,
    }


def _place(group: Group, seen: Seen, folder: Path | None) -> dict[str, Any]:
    """Operation, file and line; and the module, where no line of the user's is executed at the operation itself."""
    name, file, line = group
    found = seen.get(group)
    site = None if found is None else found.site
    if site is not None:
        file, line = site.file, site.line
    built = site is not None and (site.executing is not None or not site.file)
    return {
        "operation": name,
        "kind": None if found is None else found.kind,
        "file": _from(folder, file),
        "line": line,
        "code": "" if site is None else site.code,
        "module": site.module if built and site is not None else None,
        "inside": None
        if site is None or site.inside is None
        else [_from(folder, site.inside[0]), site.inside[1]],
    }


def _from(folder: Path | None, file: str) -> str:
    """A file's path from the target's folder where it lies there, else its last two parts."""
    if folder is not None and file.startswith(f"{folder}{os.sep}"):
        return Path(file).relative_to(folder).as_posix()
    return "/".join(Path(file).parts[-2:])
