"""How long an audit will take, from the time that passes of this network take on this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ...attacks import Setting
from ...diagnostics import Preflight
from ...errors import GradientFailed
from ...gradients import Exact
from ...objectives import cross_entropy
from ...remedies import Candidate
from ..campaign.plan import BUDGETS, Budget
from ..campaign.pricing import HOUR, TIMED, duration, payable, race_seconds, seconds
from ..campaign.race import WINNERS
from ..context import Subject

# What runs on every network beside the plan, in gradients: by the trace (of eight images), by the race's entrants, of
# which there are about four, on each of its images and steps, and by the controls on each of theirs. Ours.
TRACE, RACERS, CONTROLS = 60 * 8, 4, 100
# So many times as dear as the plain gradient is worth a forecast of its own. Ours.
DEARER = 2.0


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
    - `gradient`: which one the pace's estimate is.
    """

    pace: Pace
    least: float
    most: float
    beside: tuple[str, ...] = ()
    gradient: str = "a gradient"

    def sentence(self, budget: str, quick: float) -> str:
        """For the terminal. `quick`: the least that the smallest budget takes."""
        forward, estimate = _short(self.pace.forward), _short(self.pace.estimate)
        pace = f"a forward pass takes {forward} an image, {self.gradient} {estimate}"
        least = duration(self.least)
        if self.least <= HOUR:
            more = f", without {' and '.join(self.beside)}" if self.beside else ""
            return f"{pace}: about {least} if images fall at once, at most {duration(self.most)} if all hold out{more}"
        way_out = "" if budget == "quick" else f"--budget quick takes at least {duration(quick)}, "
        return (
            f"{pace}: {budget} cannot end within an hour here, it takes at least {least}; {way_out}fewer --examples "
            "take less"
        )


def pace(subject: Subject, facts: Preflight) -> Pace:
    """Timed on one small batch, after the network has been warmed up by the preflight."""
    some = subject.everyone[: min(TIMED, subject.batch_size)]
    x, y, classifier = subject.x[some], subject.y[some], subject.classifier
    began = seconds()
    with torch.no_grad():
        classifier(x, generator=subject.streams("pace", some))
    forward = (seconds() - began) / len(some)
    if not facts.gradient_available:
        return Pace(forward, 3 * forward)
    began = seconds()
    try:
        Exact().estimate(classifier, cross_entropy, x, y, generator=subject.streams("pace", some))
    except (RuntimeError, GradientFailed):
        return Pace(forward, 3 * forward)
    return Pace(forward, (seconds() - began) / len(some))


def forecast(
    subject: Subject, facts: Preflight, budget: Budget, speed: Pace, entrants: Sequence[Candidate] = ()
) -> Forecast:
    """Of a budget, on the images that are right without an attack.

    `entrants`: of the race, with their prices, once they are known. Then it is of what comes behind the trace.
    """
    right = facts.clean_accuracy * len(subject) / subject.processes.count
    setting = Setting(random=subject.random, detector=facts.has_detector, classes=facts.num_classes)
    racing = min(budget.race_examples, right)
    if entrants:
        images, payers = payable(entrants, math.ceil(racing), budget.race_steps)
        least = most = race_seconds(payers, images, budget.race_steps)
        prices = [entrant.seconds for entrant in payers[1:]]
        few, many = min(prices), max(prices)
    else:
        few, many = (n * speed.estimate for n in ((2, budget.draws) if subject.random else (1, 1)))
        least, most = (n * (TRACE + RACERS * racing * budget.race_steps) for n in (few, many))
    always = right * budget.naive_steps + CONTROLS * min(budget.control_examples, len(subject))
    estimates, forwards, beside = 0.0, 0.0, []
    for part in budget.in_turn():
        estimates += part.steps * min(WINNERS, max(1, len(entrants)))
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
    least += few * always
    most += many * (always + right * estimates) + right * forwards * speed.forward
    return Forecast(speed, least, max(most, least), tuple(beside))


def say(subject: Subject, facts: Preflight) -> None:
    """Tells whoever watches the first process."""
    if subject.processes.rank:
        return
    speed = pace(subject, facts)
    found, quick = (forecast(subject, facts, b, speed) for b in (subject.budget, BUDGETS["quick"]))
    subject.progress.note(found.sentence(subject.claim.budget, quick.least))


def say_again(subject: Subject, facts: Preflight, entrants: Sequence[Candidate]) -> None:
    """Tells it once more, of what is left to do, where a gradient that races is far dearer than the plain one."""
    if subject.processes.rank or len(entrants) == 1:
        return
    _, racing = payable(entrants, subject.budget.race_examples, subject.budget.race_steps)
    dearest = max(entrant.seconds for entrant in racing)
    if dearest <= DEARER * entrants[0].seconds:
        return
    speed = Pace(pace(subject, facts).forward, dearest)
    found, quick = (forecast(subject, facts, b, speed, entrants) for b in (subject.budget, BUDGETS["quick"]))
    found = replace(found, gradient="the dearest gradient that races")
    sentence = found.sentence(subject.claim.budget, quick.least)
    subject.progress.note(
        f"that was for the plain gradient, and repaired ones are dearer; from here on: {sentence}"
    )


def _short(seconds: float) -> str:
    """Of one pass.

    >>> _short(0.00123), _short(0.123), _short(2.5)
    ('1.2 ms', '0.12 s', '2.5 s')
    """
    return f"{seconds:.2g} s" if seconds >= 0.1 else f"{1e3 * seconds:.2g} ms"
