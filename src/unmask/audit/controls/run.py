"""The controls: checks that would catch an attack that only seems to fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from ...attacks.base import Images, Labels
from ...classifier import Classifier, Meter
from ...diagnostics import (
    Diagnostic,
    Reading,
)
from ...errors import GradientFailed, Unsupported
from ...foreign import failure, wants_to_stop
from ...randomness import Streams
from ...threat import ThreatModel
from ..campaign.standing import Standing
from ..context import Subject
from ..records import Control
from ..runtime.batch_size import BatchSize
from ..runtime.readings import entry_of, reading_of
from .check import Check

RAISED = "raised"  # statistic of a control that could not be measured


@dataclass(frozen=True)
class Examined:
    """A control that ran.

    **Fields**
    - `check`: which control.
    - `reading`: what it said; None where it does not apply to this network.
    - `again`: what it said of the campaign as a whole, after that had gone on; None where it was not asked again.
    """

    check: Check
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
    """Runs one control; None where it does not apply to this network, a failed reading where it raises."""
    try:
        return diagnostic.examine(classifier, x, y, threat, generator=streams)
    except (Unsupported, GradientFailed):
        return None
    except BaseException as error:
        if isinstance(error, torch.OutOfMemoryError) or wants_to_stop(error):
            raise
        return Reading(
            name=type(diagnostic).__name__,
            passed=False,
            value=None,
            expected="to be measured",
            explanation=f"It could not be measured: it raised {failure(error)}.",
            statistics={RAISED: 1.0},
            decisive=True,
        )


def run_controls(
    subject: Subject, standing: Standing, checks: Mapping[Check, Diagnostic], tag: str
) -> list[Examined]:
    """Runs the controls on a few examples; those in the journal are as they were.

    Of what they tried they hand out what lies in the claimed ball. For the first process alone.

    **Arguments**
    - `tag`: names the run, its random numbers and its entries in the journal.
    """
    memory = BatchSize(standing.rounds.memory.size, tag, subject.journal, subject.progress)
    found, mute = [], {}
    for done, (check, diagnostic) in enumerate(checks.items(), 1):
        reading = _run(subject, standing, memory, diagnostic, f"{tag} {check.name}")
        if reading is not None and RAISED in reading.statistics:
            mute.setdefault(reading.explanation, []).append(f"“{check.name}”")
        found.append(Examined(check, reading))
        subject.progress.update(standing.robust_accuracy, done, len(checks))
    for why, names in mute.items():
        if any(why in said and all(name in said for name in names) for said in subject.warnings):
            continue  # when they were asked first
        these = f"control {names[0]} tells" if len(names) == 1 else f"controls {', '.join(names)} tell"
        subject.warn(f"the {these} nothing: {why}")
    return found


def _run(
    subject: Subject, standing: Standing, memory: BatchSize, diagnostic: Diagnostic, key: str
) -> Reading | None:
    entry = subject.journal.get(key) if subject.journal else None
    if entry is not None:
        standing.rounds.replay(Meter(**entry.record["meter"]))
        return reading_of(entry, subject.threat, subject.device)
    meter = subject.classifier.meter
    before = meter.snapshot()

    def on(size: int) -> Reading | None:
        few = slice(min(subject.budget.control_examples, size))
        x, y, streams = subject.x[few], subject.aim[few], subject.streams(key, few)
        return examine(diagnostic, subject.classifier, x, y, subject.threat, streams)

    reading = memory.fitting(on, min(subject.budget.control_examples, len(subject)), meter)
    if reading is not None:
        inside = tuple(t for t in reading.tried if subject.threat.covers(t.threat))
        reading = replace(reading, tried=inside)
    if subject.journal:
        record, tensors = entry_of(reading)
        subject.journal.put(key, record | {"meter": vars(meter.since(before))}, tensors)
    return reading


def as_control(examined: Examined, *, named: bool, outside: bool, stands: bool = True) -> Control:
    """The report's line for a control, and what its failure means.

    **Arguments**
    - `named`: whether the audit names a masking.
    - `outside`: whether the adversary sees answers only, so that no gradient matters to the verdict.
    - `stands`: whether any example survives. A measured 0 % cannot be made wrong by attacks that miss something.
    """
    first = examined.reading
    if first is None:
        return Control(name=examined.check.name, passed=None, explanation="does not apply to this network")
    role, more = (None, "") if first.passed is not False else _role(examined, first, named, outside)
    if role == "open" and examined.check.of_misses and not stands:
        role, more = None, " No example survives, so that nothing was missed."
    return Control(
        name=examined.check.name,
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
    again, exact = examined.again, examined.check.exact
    asked = "the gradient that the attacks followed" if exact else "all that the attacks found and can do"
    if again is not None and again.passed:
        return "symptom", f" Asked again of {asked}, it passes."
    if exact and (named or outside):  # where the network's own gradient was found to mask, this gave it away
        return ("symptom" if named else None), ""
    if again is not None:
        return "open", f" Asked again of {asked}: {again.explanation}"
    if first.decisive or examined.check.misled:
        return "open", " Nothing that the audit found or did explains it."
    return ("symptom" if named else None), ""
