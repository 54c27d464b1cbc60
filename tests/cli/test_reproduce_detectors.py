"""`unmask reproduce lecture-defenses --quick`, the detectors' rows: they look good against PGD, and fall."""

import json
import math

import pytest
import torch

from unmask.cli.main import main
from unmask.defenses.detectors import threshold_at
from unmask.reproducing.papers import paper
from unmask.statistics import clopper_pearson

thresholds = paper("lecture-defenses").detectors.thresholds


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


def test_intervals_of_a_threshold_cover_what_they_say():
    """The true rate of a threshold, and the true quantile, of uniform scores, whose distribution is known."""
    generator = torch.Generator().manual_seed(0)
    n, trials = 120, 2000
    above = math.floor(0.05 * n)
    least, most = thresholds.rate_interval(n, above)
    rates, quantiles = 0, 0
    for _ in range(trials):
        scores = torch.rand(n, generator=generator)
        rates += least <= 1 - threshold_at(scores, 0.05) <= most
        low, high = thresholds.quantile_interval(scores, 0.05)
        quantiles += low <= 0.95 < high
    assert 0.94 < rates / trials < 0.965  # exact
    assert 0.945 < quantiles / trials < 0.985  # at least, for order statistics are few


def test_an_end_that_no_score_can_name_is_infinite():
    assert thresholds.quantile_interval(torch.arange(20.0), 0.05)[1] == math.inf
    assert thresholds.quantile_interval(torch.arange(20.0), 0.95)[0] == -math.inf


def test_both_uncertainties_together_are_wider_than_either():
    """Of 40 images that fall at thresholds above 0.9 one after the other."""
    scores = torch.linspace(0, 1, 300)

    def fooled(threshold):
        return float(round(40 * min(1, max(0, (threshold - 0.9) / 0.1))))

    row = thresholds.joint_interval(fooled, scores, 0.05, 40)
    (lax, strict), (fewest, most) = row["thresholds"], row["at_thresholds"]
    assert lax < 0.95 < strict
    assert fewest < 0.5 < most
    alone = clopper_pearson(20, 40)
    assert row["interval"][0] < alone[0]
    assert row["interval"][1] > alone[1]
    assert row["interval"] == [
        clopper_pearson(40 * fewest, 40, 0.975)[0],
        clopper_pearson(40 * most, 40, 0.975)[1],
    ]


@pytest.mark.slow
def test_maps_detect_plain_pgd_and_nobody_who_knows_them(tmp_path):
    name = "digits, explained: saliency"
    words = [
        "reproduce",
        "lecture-defenses",
        "--quick",
        "--examples",
        "16",
        "--steps",
        "15",
        "--out",
        str(tmp_path),
    ]
    assert main([*words, "--only", name]) == 0
    assert main([*words, "--only", f"{name}, audit"]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    hand, audit = rows[name], rows[f"{name}, audit"]
    assert hand["detected_pgd"] > 0.6
    assert hand["area_pgd"] > 0.9
    assert hand["left"]["high confidence"] > hand["value"] + 0.2
    assert hand["value"] <= 0.1
    assert audit["value"] <= hand["value"] + 0.07  # one image of 16
    assert (audit["verdict"], [f["mechanism"] for f in audit["found"]]) == ("refuted", ["detector"])
