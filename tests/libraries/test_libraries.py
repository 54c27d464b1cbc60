"""Networks as libraries build them: an audit leaves no more than an attack that knows the library, and names the line.

`make test-libraries` installs the libraries and runs these; they are no part of `make test`.
"""

import importlib.util
from pathlib import Path

import pytest
from tests.libraries.cases import Case, cases
from tests.libraries.measure import measured

pytestmark = [pytest.mark.libraries, pytest.mark.filterwarnings("ignore")]

IMAGES = 50
SLACK = 1 / IMAGES + 1e-6  # one image


def installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it
        return False


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_an_audit_goes_as_far_as_who_knows_the_library(case: Case):
    if not installed(case.imported):
        pytest.skip(f"{case.library} is not installed; make test-libraries installs it")
    found = measured(case, IMAGES)
    report = found.report
    assert report.clean_accuracy >= 0.8
    assert report.robust_accuracy <= found.by_hand + SLACK
    named = {f.mechanism for f in report.masking}
    if not case.mechanisms:
        assert not named, report.masking
        return
    assert named & case.mechanisms, named
    first = next(f for f in report.masking if f.mechanism in case.mechanisms)
    assert Path(first.file or "").name == case.file.name, first
    assert first.line in case.guilty, first
