"""After the campaign come the controls, and what they find has consequences.

Every point of theirs enters the standing. An attack of theirs that breaks what the campaign left runs on all that is
left; a control that says the campaign followed a gradient that misleads makes it go on without one, and is asked again,
this time about everything that the campaign found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...attacks import Square
from ...diagnostics import (
    BlackBox,
    Diagnostic,
    GradientCheck,
    OneStep,
    Planted,
    RandomNoise,
    Reading,
    SameAnswers,
    breaks_more,
)
from ...diagnostics.early import Early
from ...diagnostics.on_grid import DataLevels
from ...diagnostics.rebuilt import Rebuilt
from ...remedies import Candidate
from ...threat import NormBall
from ..campaign.attack_runner import Campaign
from ..campaign.black_box import search_for_controls
from ..campaign.standing import Standing
from ..campaign.steps import Step
from ..context import Subject
from ..records import AccuracyAtEpsilon
from .check import CURVE, LEVELS, REPEATABILITY, SAME, Check
from .known import Done, Known, WorstOf
from .run import Examined, run_controls
from .shared import once
from .suites import plain_attack, suite, suite_outside

# Queries of the search that a planted example is given when it is looked for again. Ours.
PLANTED_QUERIES = 500


@dataclass(frozen=True)
class Controlled:
    """What came of the controls.

    **Fields**
    - `examined`: all of them, in order.
    - `ahead`: whether they broke more of their examples than the campaign had, beyond chance.
    - `few`: on how many examples they ran, at most.
    - `reopened`: whether the campaign went on.
    - `at_first`: places of the images on which a short attack ran before anything else; none where it may not count.
    """

    examined: list[Examined]
    ahead: bool
    few: int
    reopened: bool
    at_first: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def steadiness(self) -> float:
        """Mean cosine between the network's own gradients of two draws; 1 where nothing is random, 0 if unknown."""
        for e in self.examined:
            if e.check == REPEATABILITY and e.reading is not None:
                # Without it where there is no gradient at all.
                return e.reading.statistics.get("gradient_cosine", 0.0)
        return 0.0

    @property
    def curve(self) -> list[AccuracyAtEpsilon]:
        """Accuracy of the controls' own attack against the radius, smaller and larger than the claimed one."""
        readings = [e.reading for e in self.examined if e.reading and e.reading.curve and e.check == CURVE]
        return [
            AccuracyAtEpsilon(epsilon=epsilon, accuracy=accuracy, examples=len(reading.tried[0].x_adv))
            for reading in readings
            for epsilon, accuracy in reading.curve
        ]


def control(subject: Subject, standing: Standing, campaign: Campaign, winner: Candidate) -> Controlled:
    """Runs the controls, takes in what they found, and goes on with the campaign where they ask for it."""
    outside, early = subject.outside, campaign.facts.early
    at_first = _at_first(subject, standing, early)
    if outside:
        checks = suite_outside(search_for_controls(subject), targeted=subject.threat.goal == "targeted")
    else:
        plan, early_stop = (winner.gradient, winner.objective, subject.threat), not subject.random
        attack = once(subject, standing, plain_attack(*plan, early_stop=early_stop), "control")
        checks = suite(attack, *plan, early_stop=early_stop)
    stands = not (campaign.decided() or bool((standing.rate > 0.5).all()))
    if stands and not outside and isinstance(subject.threat, NormBall):
        stored = DataLevels.of(subject.x, subject.threat, standing.rate <= 0.5, early_stop=not subject.random)
        checks |= {} if stored is None else {LEVELS: stored}
    checks[SAME] = SameAnswers(
        early=early.answers,
        seedable=campaign.facts.seedable,
        untouched=subject.untouched,
        apart=subject.pristine,
        rebuilt=subject.rebuilt if stands else None,
        not_rebuilt=Rebuilt.unable(subject.spec, subject.classifier.network) if stands else "",
    )
    # Repairs do not travel from process to process, but readings do.
    examined = subject.processes.first(lambda: run_controls(subject, standing, checks, "control"))
    few = subject.everyone[: subject.budget.control_examples]
    before = standing.rate[few] > 0.5
    more = [] if _limited(subject) else _take_in(standing, examined, checks, "control")
    ahead = breaks_more(standing.rate[few] > 0.5, before)
    failed = {e.check: checks[e.check] for e in examined if e.reading and e.reading.passed is False}

    def asked(looks: dict[Check, Diagnostic]) -> dict[Check, Reading | None]:
        seen = subject.processes.first(lambda: run_controls(subject, standing, looks, "control again"))
        if not _limited(subject):
            _take_in(standing, seen, looks, "control again")
        return {e.check: e.reading for e in seen}

    again = {} if outside else asked(_along_the_winner(failed, winner))
    misled = [check for check, reading in again.items() if not (reading and reading.passed)]
    looks = _at_the_campaign(subject, standing, failed)
    reopened = bool(more or misled or looks) and not outside and not campaign.decided()
    if reopened:
        campaign.go_on(more, search=bool(misled or looks))
    again |= asked(_at_the_campaign(subject, standing, failed))  # at what stands now
    return Controlled(
        [replace(e, again=again.get(e.check)) for e in examined], ahead, len(few), reopened, at_first
    )


def _at_first(subject: Subject, standing: Standing, early: Early) -> Tensor:
    """Offers what preflight's short attack found; returns places of the images on which it ran."""
    if subject.outside or early.x_adv is None:  # whoever only asks sees no gradient
        return subject.everyone[:0]
    points, rows = subject.x.clone(), early.rows.to(subject.device)
    points[rows] = early.x_adv.to(subject.device)
    standing.step("first attack", None, lambda part, _: points[part], rows)
    return rows


def _limited(subject: Subject) -> bool:
    """Whether the adversary may ask only so often: a point of the controls may have cost more than was left."""
    return subject.claim.queries is not None


def _take_in(
    standing: Standing, examined: Sequence[Examined], checks: Mapping[Check, Diagnostic], tag: str
) -> list[Step]:
    """Offers every point of the controls to the standing; returns the attacks that broke what nobody had."""
    steps: list[Step] = []
    offered: list[Tensor] = []
    for check, n, tried in (
        (e.check, n, t) for e in examined if e.reading for n, t in enumerate(e.reading.tried)
    ):
        name, points = check.name, tried.x_adv.to(standing.x.device)
        if any(torch.equal(points, others) for others in offered):  # several controls share a run
            continue
        offered.append(points)
        chosen = torch.arange(len(points), device=points.device)
        words = f"{name}, its {tried.by}" if tried.by else name
        standing.step(f"{tag} {name} {n}", f"control: {words}", lambda part, _, p=points: p[part], chosen)
        if not standing.spent[-1].newly_broken:
            standing.spent.pop()  # it proves nothing new and is listed among the controls
        elif tried.by and tried.threat == standing.threat:
            attack = getattr(checks[check], tried.by)
            attack = attack.attack if isinstance(attack, Done) else attack
            if not any(attack is step.attack for step in steps):
                steps.append(
                    Step(f"after {tag} {name} {tried.by}", f"on all, as the control: {words}", attack)
                )
    return steps


def _along_the_winner(failed: Mapping[Check, Diagnostic], winner: Candidate) -> dict[Check, Diagnostic]:
    """What failed of the exact gradient, asked of the one that the campaign has followed."""
    return {
        check: replace(diagnostic, gradient=winner.gradient)
        for check, diagnostic in failed.items()
        if isinstance(diagnostic, GradientCheck)
    }


def _at_the_campaign(
    subject: Subject, standing: Standing, failed: Mapping[Check, Diagnostic]
) -> dict[Check, Diagnostic]:
    """What failed of one attack, asked of everything that the campaign has found, or of all that it can do."""
    known = Known(points=standing.x_adv[: subject.budget.control_examples])
    looks: dict[Check, Diagnostic] = {}
    for check, diagnostic in failed.items():
        match diagnostic:
            case BlackBox():
                looks[check] = replace(diagnostic, white=known)
            case RandomNoise():
                looks[check] = replace(diagnostic, attack=known)
            case OneStep():
                looks[check] = replace(diagnostic, many=known)
            case Planted():
                search = Square(queries=PLANTED_QUERIES, early_stop=not subject.random)
                looks[check] = replace(diagnostic, attack=WorstOf(attacks=(diagnostic.attack, search)))
            case _:
                pass
    return looks
