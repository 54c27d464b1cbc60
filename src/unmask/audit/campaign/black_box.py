"""The attacks of an adversary who does not see the network, and what they ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...attacks import Attack, CoordinateSearch, HopSkipJump, RayS, Setting, Substitute, search
from ...attacks.queried import Queried
from ...objectives import Undetected, margin_loss
from ...threat import FewPixels, Linf
from ..context import Subject
from ..records import QueriesRecord
from .standing import Standing
from .steps import Step

# A substitute learns from so few answers that it runs first; with less than this left, all queries search. Ours.
SUBSTITUTE, LEAST = Substitute(samples=16, rounds=4), 200
LEARNING = 1 + SUBSTITUTE.samples + SUBSTITUTE.rounds
# Of the queries that scores leave, this share goes to random search, the rest to labels alone. Ours.
SEARCH = 0.75
# Of the queries of random search, this share goes to coordinate search first, on vectors of few features. Ours.
COORDINATES = 0.5


def outside_steps(subject: Subject, *, detector: bool) -> Iterator[Step]:
    """A substitute that learns from the answers, searches over the scores, and a walk along the boundary.

    Under a limit they share it: no example is asked about more often. Without one, each takes the budget's queries.
    """
    patient = subject.random
    each = subject.claim.queries or subject.budget.black_box_queries
    left = each
    few = isinstance(subject.threat, FewPixels)
    if left >= LEAST and not few:
        yield _step(subject, "substitute", replace(SUBSTITUTE, early_stop=not patient), LEARNING)
        left -= LEARNING if subject.claim.queries else 0
    if subject.claim.knowledge == "scores":
        aims = subject.threat.goal == "targeted"
        share = left if subject.claim.queries is None or aims or few or left < LEAST else round(SEARCH * left)
        objective = Undetected(margin_loss) if detector else margin_loss
        limited = subject.claim.queries is not None
        coordinates = _coordinates(subject, round(COORDINATES * share) if limited else share, detector)
        if coordinates is not None:
            yield _step(subject, coordinates.describe(), coordinates, coordinates.queries)
            share, left = (n - coordinates.queries * limited for n in (share, left))
        asked = search(subject.threat, queries=share, objective=objective, early_stop=not patient)
        yield _step(subject, asked.describe(), asked, share)
        left -= share if subject.claim.queries else 0
    if subject.threat.goal == "targeted" or few or left < 1:
        return  # walks from labels start at a random image, which is hardly ever of a given class
    walk = RayS(queries=left) if isinstance(subject.threat, Linf) else HopSkipJump(queries=left)
    yield _step(subject, f"{type(walk).__name__}-{left} (labels only)", walk, left)


def _coordinates(subject: Subject, queries: int, detector: bool) -> CoordinateSearch | None:
    """None where random search alone is asked: for images, where few pixels change, and of fewer than two queries."""
    if isinstance(subject.threat, FewPixels) or queries < 2:
        return None
    shape = tuple(subject.x.shape[1:])
    setting = Setting(random=subject.random, detector=detector, shape=shape)
    fitted = CoordinateSearch(queries=queries).fit(setting)
    return fitted if isinstance(fitted, CoordinateSearch) else None


def _step(subject: Subject, recipe: str, attack: Attack, queries: int) -> Step:
    seen = Queried(inner=attack, answers=subject.answers, queries=queries)
    return Step(f"outside {recipe}", f"{recipe}, told {subject.answers}", seen)


def search_for_controls(subject: Subject) -> Attack:
    """What the controls look at: the adversary's own search, on a few queries."""
    queries = min(200, subject.claim.queries or 200)
    asked: Attack = search(subject.threat, queries=queries, early_stop=not subject.random)
    if subject.claim.knowledge == "labels":
        asked = RayS(queries=queries) if isinstance(subject.threat, Linf) else HopSkipJump(queries=queries)
    return Queried(inner=asked, answers=subject.answers, queries=queries)


def queries_spent(subject: Subject, standing: Standing, steps: list[Step]) -> QueriesRecord:
    """What these steps asked; the meter counts forwards, of which a query takes as many as there are passes."""
    ran = steps[: len(standing.spent)]
    asked = sum(spent.meter.forwards for spent in standing.spent) / subject.classifier.passes
    most = sum(step.attack.queries or 0 for step in ran if isinstance(step.attack, Queried))
    return QueriesRecord(limit=subject.claim.queries, most=most, mean=asked / len(subject))
