"""Every fixture: its script, in a fresh process without unmask, comes within two points of its audit."""

import pytest
from tests.fixtures.catalogue import BROKEN, HONEST
from tests.report.script.every_fixture import measured


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN + HONEST, ids=lambda case: case.name)
def test_the_script_finds_what_the_audit_found(case, tmp_path):
    row = measured(case, tmp_path)
    slack = 2 if not case.random else 4  # judged on fresh draws, here and there
    assert row.replayed <= row.audit + slack
    assert row.difference <= slack
