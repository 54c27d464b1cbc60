"""What no audit writes is refused by its name, before anything is computed from it."""

import json

import pytest
from tests.audit.small_audit import small_audit, write_target

from unmask.audit.verifying import well_formed
from unmask.audit.verifying.well_formed import MOST_PASSES, read_report
from unmask.errors import UnusableInput


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("audit")
    small_audit(place, f"{write_target(place)}:linear")
    return place


@pytest.fixture
def altered(folder, tmp_path):
    stated = json.loads((folder / "report.json").read_text())

    def read(at, value):
        *way, last = at.split(".")
        part = stated
        for key in way:
            part = part[key]
        part[int(last) if last.isdigit() else last] = value
        (tmp_path / "report.json").write_text(json.dumps(stated))
        return read_report(tmp_path)

    return read


RANGES = [
    ("claim", "claim", 0.0, 1.0, [-0.01, 1.01]),
    ("clean_accuracy", "clean_accuracy", 0.0, 1.0, [-0.01, 1.01]),
    ("robust_accuracy", "robust_accuracy", 0.0, 1.0, [-0.01, 1.01]),
    ("robust_accuracy_interval.0", "robust_accuracy_interval", 0.0, 1.0, [-0.01, 1.01]),
    ("robust_accuracy_interval.1", "robust_accuracy_interval, its upper end,", 0.0, 1.0, [-0.01, 1.01]),
    ("naive_robust_accuracy", "naive_robust_accuracy", 0.0, 1.0, [-0.01, 1.01]),
    ("certified_accuracy", "certified_accuracy", 0.0, 1.0, [-0.01, 1.01]),
    ("examples", "examples", 1, 2**48, [0, 2**48 + 1]),
    ("passes", "passes", 1, MOST_PASSES, [0, MOST_PASSES + 1]),
    ("environment.batch_size", "batch_size", 1, 2**48, [0, 2**48 + 1]),
    ("threat.epsilon", "epsilon", 0.0, 1e300, [float("inf")]),
]


@pytest.mark.parametrize(("at", "name", "least", "most", "beyond"), RANGES, ids=[r[0] for r in RANGES])
def test_a_number_is_refused_by_name_beyond_what_can_be_and_read_up_to_it(
    altered, tmp_path, at, name, least, most, beyond
):
    for value in (least, most):
        altered(at, value)
    for value in beyond:
        with pytest.raises(UnusableInput) as refused:
            altered(at, value)
        assert str(refused.value) == (
            f"{name} of {tmp_path / 'report.json'} is {value}, which no audit writes; run the audit again"
        )


def test_a_report_larger_than_any_is_not_read(folder, monkeypatch):
    size = (folder / "report.json").stat().st_size
    monkeypatch.setattr(well_formed, "LARGEST", size)
    read_report(folder)
    monkeypatch.setattr(well_formed, "LARGEST", size - 1)
    with pytest.raises(UnusableInput, match=rf"report.json has {size:,} bytes, more than any report; run"):
        read_report(folder)


def test_the_reason_why_it_is_no_report_is_one_short_line(altered):
    with pytest.raises(UnusableInput) as refused:
        altered("examples", {"a\n b": "c" * 500})
    reason = str(refused.value).split("(", 1)[1].rsplit(")", 1)[0]
    assert len(reason) == 200
    assert "\n" not in reason
    assert "  " not in reason
    assert reason.startswith("1 validation error for Report examples Input should be a valid integer")


def test_a_folder_without_a_report_is_told(tmp_path):
    with pytest.raises(UnusableInput, match=r"there is no .*report.json; give the folder that a finished"):
        read_report(tmp_path)
