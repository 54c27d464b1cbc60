"""What an estimate of each entrant takes, asked before the race."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field

import pytest
from tests.audit.runtime.test_forecast import Told, digits_network, subject_and_facts

from unmask.audit.campaign.pricing import TIMED, priced, seconds
from unmask.audit.runtime.forecast import say_again
from unmask.errors import Interrupted
from unmask.gradients import Exact, GradientEstimator
from unmask.remedies import Candidate


@dataclass(frozen=True)
class Sleeper(GradientEstimator):
    """The exact gradient, after a nap for the batch and one for each image."""

    nap: float = 0.0
    each: float = 0.0
    asked: list = field(default_factory=list, compare=False)

    def estimate(self, classifier, objective, x, y, *, generator):
        self.asked.append(len(x))
        time.sleep(self.nap + self.each * len(x))
        return Exact().estimate(classifier, objective, x, y, generator=generator)


@dataclass(frozen=True)
class Raising(GradientEstimator):
    error: BaseException

    def estimate(self, classifier, objective, x, y, *, generator):
        raise self.error


def prices(*entrants, subject=None):
    subject = subject or subject_and_facts(digits_network())[0]
    return [e.seconds for e in priced(subject, [Candidate("exact", Exact()), *entrants])]


@pytest.mark.parametrize(
    ("nap", "each", "asked"),
    [(0.08, 0.0, [1, TIMED]), (0.0, 0.01, [1, TIMED]), (0.4, 0.0, [1, 2]), (0.1, 0.3, [1, 2])],
)
def test_a_batchs_share_and_an_images_own_are_told_apart(nap, each, asked):
    """A dear estimate is not asked for eight images: two tell what each further one adds."""
    sleeper = Sleeper(nap, each)
    _, found = prices(Candidate("sleepy", sleeper))
    assert sleeper.asked == asked
    assert nap / TIMED + each <= found * 1.02 + 0.002
    assert found < nap / TIMED + each + 0.1  # a busy machine takes longer


def test_passes_of_the_clock_are_nobodys_attack():
    subject, _ = subject_and_facts(digits_network())
    before = subject.classifier.meter.snapshot()
    prices(Candidate("smooth", Exact()), subject=subject)
    assert subject.classifier.meter == before


def test_an_estimate_that_does_not_run_costs_nothing_and_who_wants_to_stop_is_heard():
    assert prices(Candidate("broken", Raising(ValueError("no"))))[1] == 0
    with pytest.raises(Interrupted):
        prices(Candidate("stopped", Raising(Interrupted())))


def test_nothing_is_measured_where_nothing_races():
    sleeper = Sleeper()
    subject, _ = subject_and_facts(digits_network())
    assert priced(subject, [Candidate("exact", sleeper)])[0].seconds == 0
    assert not sleeper.asked


def test_the_clock_stands_while_another_process_has_the_processor():
    """Two that share one processor: each has its own time, which is less than the wall's."""
    here = os.sched_getaffinity(0)
    rival = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for process in (0, rival.pid):
            os.sched_setaffinity(process, {min(here)})
        began, wall, own = seconds(), time.perf_counter(), time.process_time()
        while time.process_time() - own < 0.2:
            pass
        took, wall = seconds() - began, time.perf_counter() - wall
    finally:
        rival.kill()
        rival.wait()
        os.sched_setaffinity(0, here)
    assert 0.19 < took < 0.3 < wall


def test_the_clock_goes_on_in_sleep():
    began = seconds()
    time.sleep(0.05)
    assert 0.04 < seconds() - began < 5


@pytest.mark.parametrize(("each", "notes"), [(0.0, 0), (0.03, 1)])
def test_a_dear_repair_has_a_forecast_of_its_own(each, notes):
    told = Told()
    subject, facts = subject_and_facts(digits_network(), progress=told)
    entrants = priced(
        subject, [Candidate("exact", Sleeper(each=0.01)), Candidate("smooth", Sleeper(each=0.01 + each))]
    )
    say_again(subject, facts, entrants)
    found = [note for note in told.notes if "from here on" in note]
    assert len(found) == notes
    assert all("the dearest gradient that races" in note and "if all hold out" in note for note in found)


def test_only_what_races_is_forecast():
    told = Told()
    subject, facts = subject_and_facts(digits_network(), progress=told)
    say_again(subject, facts, [Candidate("exact", Exact())])
    assert not told.notes
