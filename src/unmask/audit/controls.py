"""The controls: checks that would catch an attack that only seems to fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..attacks.base import Images, Labels
from ..classifier import Classifier, Meter
from ..diagnostics import (
    Diagnostic,
    Reading,
    Tried,
)
from ..foreign import wants_to_stop
from ..randomness import Streams
from ..threat import ThreatModel
from .context import Subject
from .records import Control
from .runtime.batch_size import BatchSize
from .runtime.journal import Entry
from .standing import Standing


@dataclass(frozen=True)
class Examined:
    """A control that ran.

    **Fields**
    - `name`: under which the report lists it.
    - `reading`: what it said; None where it does not apply to this network.
    - `again`: what it said of the campaign as a whole, after that had gone on; None where it was not asked again.
    """

    name: str
    reading: Reading | None
    again: Reading | None = None


def examine(
    diagnostic: Diagnostic,
    classifier: Classifier,
    x: Images,
    y: Labels,
    threat: ThreatModel,
    streams: Streams,
) -> Reading | None:
    """Runs one control; None where it does not apply to this network."""
    try:
        return diagnostic.examine(classifier, x, y, threat, generator=streams)
    except BaseException as error:
        if isinstance(error, torch.OutOfMemoryError) or wants_to_stop(error):
            raise
        return None


def run_controls(
    subject: Subject, standing: Standing, checks: Mapping[str, Diagnostic], tag: str
) -> list[Examined]:
    """Runs the controls on a few examples; those in the journal are as they were.

    Of what they tried they hand out what lies in the claimed ball. For the first process alone.

    **Arguments**
    - `tag`: names the run, its random numbers and its entries in the journal.
    """
    memory = BatchSize(standing.memory.size, tag, subject.journal, subject.progress)
    found = []
    for done, (name, check) in enumerate(checks.items(), 1):
        found.append(Examined(name, _run(subject, standing, memory, check, f"{tag} {name}")))
        subject.progress.update(standing.robust_accuracy, done, len(checks))
    return found


def _run(
    subject: Subject, standing: Standing, memory: BatchSize, check: Diagnostic, key: str
) -> Reading | None:
    entry = subject.journal.get(key) if subject.journal else None
    if entry is not None:
        standing.replay(Meter(**entry.record["meter"]))
        return _reading(subject, entry)
    meter = subject.classifier.meter
    before = meter.snapshot()

    def on(size: int) -> Reading | None:
        few = slice(min(subject.budget.control_examples, size))
        x, y, streams = subject.x[few], subject.aim[few], subject.streams(key, few)
        return examine(check, subject.classifier, x, y, subject.threat, streams)

    reading = memory.fitting(on, min(subject.budget.control_examples, len(subject)), meter)
    if reading is not None:
        inside = tuple(t for t in reading.tried if t.threat.epsilon <= subject.threat.epsilon)
        reading = replace(reading, tried=inside)
    if subject.journal:
        record, tensors = _entry(reading)
        subject.journal.put(key, record | {"meter": vars(meter.since(before))}, tensors)
    return reading


def _entry(reading: Reading | None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A reading as the journal keeps it."""
    if reading is None:
        return {"reading": None}, {}
    said = {k: v for k, v in vars(reading).items() if k != "tried"}
    tensors = {f"x_adv {n}": t.x_adv for n, t in enumerate(reading.tried)}
    tensors |= {
        f"rate {n}": t.failure_rate for n, t in enumerate(reading.tried) if t.failure_rate is not None
    }
    tried = [{"by": t.by, "epsilon": t.threat.epsilon, "draws": t.draws} for t in reading.tried]
    return {"reading": said, "tried": tried}, tensors


def _reading(subject: Subject, entry: Entry) -> Reading | None:
    """A reading as the journal kept it."""
    record, tensors = entry.record, {k: t.to(subject.device) for k, t in entry.tensors.items()}
    if record["reading"] is None:
        return None
    tried = tuple(
        Tried(
            by=t["by"],
            threat=replace(subject.threat, epsilon=t["epsilon"]),
            x_adv=tensors[f"x_adv {n}"],
            failure_rate=tensors.get(f"rate {n}"),
            draws=t["draws"],
        )
        for n, t in enumerate(record["tried"])
    )
    curve = tuple((e, a) for e, a in record["reading"]["curve"])
    return Reading(**record["reading"] | {"curve": curve}, tried=tried)


# Controls of whether the attacks follow a gradient that misleads them.
ASKED_AGAIN = (
    "black box against white box",
    "random noise of the same size",
    "one step against many",
    "planted example",
    "gradient against finite difference, exact",
)


def as_control(examined: Examined, *, named: bool, outside: bool) -> Control:
    """The report's line for a control, and what its failure means.

    **Arguments**
    - `named`: whether the audit names a masking.
    - `outside`: whether the adversary sees answers only, so that no gradient matters to the verdict.
    """
    first = examined.reading
    if first is None:
        return Control(name=examined.name, passed=None, explanation="does not apply to this network")
    role, more = (None, "") if first.passed is not False else _role(examined, first, named, outside)
    return Control(
        name=examined.name,
        passed=first.passed,
        value=first.value,
        expected=first.expected,
        explanation=first.explanation + more,
        decisive=role == "open",
        role=role,
    )


def _role(
    examined: Examined, first: Reading, named: bool, outside: bool
) -> tuple[Literal["symptom", "open"] | None, str]:
    """What the failure means, and what the explanation owes to it."""
    again, exact = examined.again, examined.name.endswith("exact")
    asked = "the gradient that the attacks followed" if exact else "all that the attacks found and can do"
    if again is not None and again.passed:
        return "symptom", f" Asked again of {asked}, it passes."
    if exact and (named or outside):  # where the network's own gradient was found to mask, this gave it away
        return ("symptom" if named else None), ""
    if again is not None:
        return "open", f" Asked again of {asked}: {again.explanation}"
    if first.decisive or examined.name in ASKED_AGAIN:
        return "open", " Nothing that the audit found or did explains it."
    return ("symptom" if named else None), ""
