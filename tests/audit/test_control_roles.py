"""What the failure of a control means, and what it does to the verdict."""

import pytest

from unmask.audit.controls.check import (
    CURVE,
    LEVELS,
    NOISE,
    NULL_ATTACK,
    ONE_STEP,
    PLANTED,
    RANDOMNESS,
    REPEATABILITY,
    SAME,
    SEARCH,
    SHARE,
    SLOPES,
    UNBOUNDED,
)
from unmask.audit.controls.run import Examined, as_control
from unmask.audit.verdict import undecided, verdict
from unmask.diagnostics import Reading


def said(passed, decisive=False):
    return Reading(name="", passed=passed, value=0.0, expected="", explanation="Said.", decisive=decisive)


def line(check, first, again=None, *, named=False, outside=False, stands=True):
    return as_control(Examined(check, first, again), named=named, outside=outside, stands=stands)


@pytest.mark.parametrize(
    ("check", "again", "options", "role"),
    [
        (SEARCH, said(True), {}, "symptom"),  # the campaign went on and made it good
        (SEARCH, said(False), {}, "open"),
        (SEARCH, said(False), {"named": True}, "open"),  # a masking was named, and search still finds more
        (SEARCH, said(None), {}, "open"),  # asked again, it could say nothing
        (SEARCH, None, {}, "open"),
        (SLOPES, said(True), {}, "symptom"),  # of the gradient that was followed, it holds
        (SLOPES, said(False), {"named": True}, "symptom"),
        (SLOPES, said(False), {}, "open"),
        (SLOPES, None, {"outside": True}, None),  # who only asks follows no gradient
        (SHARE, None, {"named": True}, "symptom"),
        (SHARE, None, {}, None),
        (REPEATABILITY, None, {}, None),
        (REPEATABILITY, None, {"named": True}, "symptom"),
    ],
)
def test_role_of_a_failure(check, again, options, role):
    control = line(check, said(False), again, **options)
    assert (control.passed, control.role) == (False, role)
    assert bool(undecided([control])) == (role == "open")
    after = verdict(claim=0.5, interval=(0.6, 0.8), controls=[control])
    assert after == ("inconclusive" if role == "open" else "not_refuted")


def test_a_decisive_failure_that_nothing_explains_is_open():
    assert line(UNBOUNDED, said(False, decisive=True), named=True).role == "open"


def test_what_passes_or_does_not_apply_has_no_role():
    assert line(SEARCH, said(True), named=True).role is None
    assert line(SEARCH, said(None)).role is None
    assert line(SEARCH, None).passed is None


STRENGTH = [UNBOUNDED, CURVE, NOISE, ONE_STEP, SEARCH, PLANTED, SLOPES, SHARE, RANDOMNESS, LEVELS]


@pytest.mark.parametrize("check", STRENGTH, ids=lambda check: check.name)
@pytest.mark.parametrize("again", [None, said(False)])
def test_where_nothing_survives_a_control_of_misses_leaves_nothing_open(check, again):
    first = said(False, decisive=True)
    assert undecided([line(check, first, again)])
    control = line(check, first, again, stands=False)
    assert control.passed is False
    assert "nothing was missed" in control.explanation
    assert not undecided([control])
    assert verdict(claim=None, interval=(0.0, 0.2), controls=[control]) == "not_refuted"


@pytest.mark.parametrize("check", [SAME, NULL_ATTACK], ids=lambda check: check.name)
def test_where_nothing_survives_a_control_of_what_counts_as_broken_still_decides(check):
    assert undecided([line(check, said(False, decisive=True), stands=False)])
