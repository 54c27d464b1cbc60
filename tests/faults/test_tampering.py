"""What `unmask verify` says to changed reports and evidence; the whole table is slow, a part of it is not."""

from pathlib import Path

import pytest
from tests.faults.tampering import run, sound, table, tamperings, verified

PAGE = Path(__file__).parents[2] / "docs" / "verify.md"


@pytest.fixture
def folder(tmp_path):
    return sound(tmp_path)


def test_what_nobody_touched_is_verified(folder):
    assert verified(folder) == (0, "")
    assert len(tamperings(folder)) >= 120


def test_every_fifteenth_is_noticed_or_taken_at_its_word_and_none_is_a_defect(folder):
    for each in tamperings(folder)[7::15]:
        status, said = run(folder, each)
        assert status in (0, 1, 2), (each.where, each.how, said)
        assert status != 2 or said.count("unmask: ") == 1, said
        if each.where.startswith("evidence"):
            assert status in (1, 2), (each.where, each.how)


@pytest.mark.parametrize(
    "how",
    [
        "a certificate by hand",
        "one row left out",
        "another verdict",
        "another radius",
        "no claim, page to match",
    ],
)
def test_those_that_would_mislead_most(folder, how):
    (each,) = [each for each in tamperings(folder) if each.how == how]
    assert run(folder, each)[0] == 1


@pytest.mark.slow
def test_the_table_of_the_documentation_is_this_run(folder):
    rows, noticed, total = table(folder)
    page = PAGE.read_text(encoding="utf-8")
    changed = [row for row in rows if row not in page.splitlines()]
    assert not changed, "\n".join(changed)
    assert "\n".join(rows) in page
    assert f"{noticed} of {total}" in page
