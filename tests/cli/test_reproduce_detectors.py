"""`unmask reproduce lecture-defenses --quick`, the detectors' rows: they look good against PGD, and fall."""

import json

import pytest

from unmask.cli.main import main


@pytest.mark.slow
def test_detectors_detect_plain_pgd_and_not_those_who_know_them(tmp_path):
    words = ["reproduce", "lecture-defenses", "--quick", "--only", "detector", "--out", str(tmp_path)]
    assert main(words) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    kappa = rows.pop("digits, detectors: Carlini-Wagner, kappa swept")
    assert len(rows) == 8
    for name, row in rows.items():
        assert row["value"] >= 0.9, name
        assert row["detected_adaptive"] <= 0.1, name
        assert row["area_pgd"] > row["area_adaptive"], name
    good = [name for name, row in rows.items() if row["detected_pgd"] > 0.9]
    assert len(good) >= 3
    # A longer lead takes a longer way.
    assert kappa["lengths"] == sorted(kappa["lengths"])
