"""How long an audit will take, from the time that passes of this network take on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ...attacks import Setting
from ...diagnostics import Preflight
from ...errors import GradientFailed
from ...gradients import Exact
from ...objectives import cross_entropy
from ..campaign.plan import BUDGETS, Budget
from ..context import Subject

# Images on which passes are timed: one batch, as large as a trace's. Ours.
TIMED = 8
# What runs on every network beside the plan, in gradients: by the trace (of eight images), by the race's entrants, of
# which there are about four, on each of its images and steps, and by the controls on each of theirs. Ours.
TRACE, RACERS, CONTROLS = 60 * 8, 4, 100
HOUR = 3600.0


@dataclass(frozen=True)
class Pace:
    """Seconds that a forward pass, and an estimate of the gradient, take for one image."""

    forward: float
    estimate: float


@dataclass(frozen=True)
class Forecast:
    """Seconds that a budget will take.

    **Fields**
    - `least`: where images fall to the first attacks.
    - `most`: where every image holds out and every stage runs on its whole share.
    - `beside`: stages whose attacks do not say what they cost, and are in neither.
    """

    pace: Pace
    least: float
    most: float
    beside: tuple[str, ...] = ()

    def sentence(self, budget: str, quick: float) -> str:
        """For the terminal. `quick`: the least that the smallest budget takes."""
        pace = f"a forward pass takes {_short(self.pace.forward)} an image, a gradient {_short(self.pace.estimate)}"
        least = _long(self.least)
        if self.least <= HOUR:
            more = f", without {' and '.join(self.beside)}" if self.beside else ""
            return f"{pace}: about {least} if images fall at once, at most {_long(self.most)} if all hold out{more}"
        way_out = "" if budget == "quick" else f"--budget quick takes at least {_long(quick)}, "
        return (
            f"{pace}: {budget} cannot end within an hour here, it takes at least {least}; {way_out}fewer --examples "
            "take less"
        )


def pace(subject: Subject, facts: Preflight) -> Pace:
    """Timed on one small batch, after the network has been warmed up by the preflight."""
    some = subject.everyone[: min(TIMED, subject.batch_size)]
    x, y, classifier = subject.x[some], subject.y[some], subject.classifier
    began = time.perf_counter()
    with torch.no_grad():
        classifier(x, generator=subject.streams("pace", some))
    forward = (time.perf_counter() - began) / len(some)
    if not facts.gradient_available:
        return Pace(forward, 3 * forward)
    began = time.perf_counter()
    try:
        Exact().estimate(classifier, cross_entropy, x, y, generator=subject.streams("pace", some))
    except (RuntimeError, GradientFailed):
        return Pace(forward, 3 * forward)
    return Pace(forward, (time.perf_counter() - began) / len(some))


def forecast(subject: Subject, facts: Preflight, budget: Budget, speed: Pace) -> Forecast:
    """Of a budget, on the images that are right without an attack."""
    right = facts.clean_accuracy * len(subject) / subject.processes.count
    setting = Setting(random=subject.random, detector=facts.has_detector, classes=facts.num_classes)
    few, many = (2, budget.draws) if subject.random else (1, 1)
    always = (
        right * budget.naive_steps
        + TRACE
        + RACERS * min(budget.race_examples, right) * budget.race_steps
        + CONTROLS * min(budget.control_examples, len(subject))
    )
    estimates, forwards, beside = 0.0, 0.0, []
    for part in budget.in_turn():
        estimates += part.steps
        forwards += part.black_box_queries
        for line in part.lines_for(subject.threat):
            for stage in line:
                attack = stage.attack.fit(setting)
                if attack is None:
                    continue
                cost = attack.cost(setting.classes)
                if cost is None:
                    beside.append(stage.name)
                    continue
                forwards += stage.fraction * cost.forwards
                estimates += stage.fraction * cost.estimates
    least = few * always * speed.estimate
    most = many * (always + right * estimates) * speed.estimate + right * forwards * speed.forward
    return Forecast(speed, least, max(most, least), tuple(beside))


def say(subject: Subject, facts: Preflight) -> None:
    """Tells whoever watches the first process."""
    if subject.processes.rank:
        return
    speed = pace(subject, facts)
    found, quick = (forecast(subject, facts, b, speed) for b in (subject.budget, BUDGETS["quick"]))
    subject.progress.note(found.sentence(subject.claim.budget, quick.least))


def _short(seconds: float) -> str:
    """Of one pass.

    >>> _short(0.00123), _short(2.5)
    ('1.2 ms', '2.5 s')
    """
    return f"{seconds:.2g} s" if seconds >= 1 else f"{1e3 * seconds:.2g} ms"


def _long(seconds: float) -> str:
    """Of an audit.

    >>> _long(0.4), _long(42), _long(600), _long(20000)
    ('a second', '42 s', '10 min', '5.6 h')
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
