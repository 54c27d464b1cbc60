"""Networks as libraries build them: an audit leaves no more than an attack that knows the library, and names the line.

`make test-libraries` installs the libraries and runs these; they are no part of `make test`.
"""

import importlib.util
from pathlib import Path

import pytest
from tests.libraries.cases import Case, cases
from tests.libraries.measure import measured

pytestmark = [pytest.mark.libraries, pytest.mark.filterwarnings("ignore")]

MISLED = 0.2  # by which the exact gradient is left behind, for something to have to be named


def installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it
        return False


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_an_audit_goes_as_far_as_who_knows_the_library(case: Case):
    if not installed(case.imported):
        pytest.skip(f"{case.library} is not installed; make test-libraries installs it")
    found = measured(case)
    report = found.report
    assert report.clean_accuracy >= 0.7  # a median that a network never saw in training costs it that much
    assert report.robust_accuracy <= found.by_hand + 1 / case.images + 1e-6  # one image
    assert {f.mechanism for f in report.masking} <= case.mechanisms, report.masking
    if found.misled > MISLED:
        assert report.masking
    if report.masking:
        first = report.masking[0]
        assert Path(first.file or "").name == case.file.name, first
        assert first.line in case.guilty, first
