"""What the failure of a control means, and what it does to the verdict."""

import pytest

from unmask.audit.controls.check import REPEATABILITY, SEARCH, SHARE, SLOPES, UNBOUNDED
from unmask.audit.controls.run import Examined, as_control
from unmask.audit.verdict import undecided, verdict
from unmask.diagnostics import Reading


def said(passed, decisive=False):
    return Reading(name="", passed=passed, value=0.0, expected="", explanation="Said.", decisive=decisive)


def line(check, first, again=None, *, named=False, outside=False):
    return as_control(Examined(check, first, again), named=named, outside=outside)


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
