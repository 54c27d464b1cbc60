"""What one estimate of each entrant of the race takes, measured before any of them runs, and who can be paid for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ...classifier import Meter
from ...foreign import wants_to_stop
from ...remedies import Candidate
from ..context import Subject

# Images on which an estimate is timed, where one alone took no longer than so many seconds. Ours.
TIMED, SOON = 8, 0.25
# Seconds that a race may take for each image and step, and the fewest images that tell gradients apart. Ours: less than
# two minutes at `quick`, as long as the plan itself takes on a small network.
PATIENCE, FEWEST = 0.6, 8
HOUR = 3600.0


def seconds() -> float:
    """A clock that stands while other processes have this thread's processor.

    So a busy machine cuts what a free one cuts. A network that sleeps, or waits for a device, takes its time all the
    same, which processor time would not show. Where the system does not say who waited, it is the clock on the wall.
    """
    try:
        with open("/proc/thread-self/schedstat") as file:
            waited = int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        waited = 0.0
    return time.perf_counter() - waited


def priced(subject: Subject, entrants: Sequence[Candidate]) -> list[Candidate]:
    """The entrants, each with the seconds that an estimate of one image takes; as they were where nothing races.

    A resumed audit reads the prices that its beginning wrote down, so that it runs the same race.
    """
    if len(entrants) == 1:
        return list(entrants)
    found = subject.processes.first(lambda: _prices(subject, entrants))
    return [replace(entrant, seconds=found.get(entrant.name, 0.0)) for entrant in entrants]


def _prices(subject: Subject, entrants: Sequence[Candidate]) -> dict[str, float]:
    key, journal = "prices", subject.journal
    entry = journal.get(key) if journal else None
    if entry is not None:
        return entry.record["seconds"]
    found = {entrant.name: _price(subject, entrant) for entrant in entrants}
    if journal:
        journal.put(key, {"seconds": found})
    return found


def _price(subject: Subject, entrant: Candidate) -> float:
    """Of one image of `TIMED`; 0 for an estimate that does not run, which its lap says."""
    try:
        alone = _timed(subject, entrant, 1)
        many = min(TIMED, subject.batch_size, len(subject))
        if many < 2:
            return alone
        if alone <= SOON:
            return _timed(subject, entrant, many) / many
        # Of a batch that is not worth the wait: what a second image adds, each further one does.
        return (alone + (many - 1) * max(_timed(subject, entrant, 2) - alone, 0.0)) / many
    except BaseException as error:
        if wants_to_stop(error):
            raise
        return 0.0


def _timed(subject: Subject, entrant: Candidate, images: int) -> float:
    classifier = subject.classifier.replace(meter=Meter())  # a clock's passes are nobody's attack
    some = subject.everyone[:images]
    x, y, streams = subject.x[some], subject.aim[some], subject.streams("price", some)
    began = seconds()
    entrant.gradient.estimate(classifier, entrant.objective, x, y, generator=streams)
    return seconds() - began


def race_seconds(entrants: Sequence[Candidate], images: int, steps: int) -> float:
    """What a race takes."""
    return images * steps * sum(entrant.seconds for entrant in entrants)


def payable(entrants: Sequence[Candidate], images: int, steps: int) -> tuple[int, list[Candidate]]:
    """On how many images a race of so many steps runs, and which entrants race, so that it ends within `PATIENCE`.

    The images are halved, down to `FEWEST`. Where that is too long still, those stay that are still to be paid for: the
    exact gradient and the first repair at any price, then each first spelling of a repair before its other widths
    ("smooth, wide"), in the order in which they were proposed.
    """
    patience = PATIENCE * images * steps

    while race_seconds(entrants, images, steps) > patience and images > FEWEST:
        images = max(FEWEST, images // 2)
    if race_seconds(entrants, images, steps) <= patience:
        return images, list(entrants)
    chosen = list(entrants[:2])
    for entrant in sorted(entrants[2:], key=lambda e: e.name.count(",")):  # stable
        if race_seconds([*chosen, entrant], images, steps) <= patience:
            chosen.append(entrant)
    return images, [entrant for entrant in entrants if entrant in chosen]


def duration(seconds: float) -> str:
    """Of an audit or a part of one, in words.

    >>> duration(0.4), duration(42), duration(600), duration(20000)
    ('a second', '42 s', '10 min', '5.6 h')
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
