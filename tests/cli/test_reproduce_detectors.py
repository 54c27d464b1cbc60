"""`unmask reproduce lecture-defenses --quick`, the detectors' rows: they look good against PGD, and fall."""

import json

import pytest

from unmask.cli.main import main
from unmask.reproducing.papers import paper


def test_curves_of_the_rows_that_have_scores():
    row = {
        "scores": {"clean": [0.0, 1.0, 2.0, 3.0], "pgd": [4.0, 5.0], "adaptive": [0.5]},
        "false_positive_rate": 0.25,
        "area_pgd": 1.0,
        "area_adaptive": 0.25,
    }
    figures = paper("lecture-defenses").plots({"digits, detector: d": row, "digits: undefended": {}})
    (panel,) = figures["roc.png"].axes
    assert panel.get_title() == "d"
    _, pgd, adaptive, rate = panel.lines
    assert (0.0, 1.0) in zip(pgd.get_xdata(), pgd.get_ydata(), strict=True)  # told apart without an error
    # One clean image of four looks less suspicious than the adaptive point: it is seen at 75 % false positives.
    assert (0.75, 1.0) in zip(adaptive.get_xdata(), adaptive.get_ydata(), strict=True)
    assert (0.5, 1.0) not in zip(adaptive.get_xdata(), adaptive.get_ydata(), strict=True)
    assert list(rate.get_xdata()) == [0.25, 0.25]
    assert paper("lecture-defenses").plots({"digits: undefended": {}}) == {}


@pytest.mark.slow
def test_detectors_detect_plain_pgd_and_not_those_who_know_them(tmp_path):
    words = ["reproduce", "lecture-defenses", "--quick", "--only", "detector", "--out", str(tmp_path)]
    assert main(words) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    kappa = rows.pop("digits, detectors: Carlini-Wagner, kappa swept")
    assert len(rows) == 8
    assert (tmp_path / "roc.png").stat().st_size > 10_000
    for name, row in rows.items():
        assert row["value"] >= 0.9, name
        assert row["detected_adaptive"] <= 0.1, name
        assert row["area_pgd"] > row["area_adaptive"], name
    good = [name for name, row in rows.items() if row["detected_pgd"] > 0.9]
    assert len(good) >= 3
    # A longer lead takes a longer way.
    assert kappa["lengths"] == sorted(kappa["lengths"])
