import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import binom, binomtest
from tests.report.sample import not_refuted, refuted

from unmask.audit.records import MaskingFinding, Report
from unmask.statistics import clopper_pearson

STABLE = {
    "schema", "verdict", "claim", "threat", "examples", "clean_accuracy", "robust_accuracy", "environment",
    "robust_accuracy_interval", "naive_robust_accuracy", "certified_accuracy", "masking", "attacks",
    "controls", "cost",
}  # fmt: skip


def test_report_has_every_stable_key(tmp_path):
    written = json.loads(refuted(tmp_path / "source.py").to_json())
    assert written.keys() >= STABLE
    assert written["schema"] == 1
    assert written["threat"].keys() == {"norm", "epsilon", "goal", "radii"}
    assert written["masking"][0].keys() >= {
        "mechanism", "symptom", "operation", "file", "line", "code", "statistics", "repair",
    }  # fmt: skip
    assert written["attacks"][0].keys() == {
        "recipe", "robust_accuracy", "newly_broken", "forwards", "backwards", "seconds", "examples",
        "ascent",
    }  # fmt: skip
    assert written["cost"].keys() == {"forwards", "backwards", "judge_forwards", "seconds"}
    assert written["environment"].keys() >= {"versions", "device", "seed", "batch_size", "checkpoint_hash"}


def test_its_repr_fits_a_screen(tmp_path):
    shown = repr(refuted(tmp_path / "source.py"))
    assert len(shown) < 24 * 80
    for word in ("verdict='refuted'", "robust_accuracy=", "shattered", "source.py:"):
        assert word in shown


def test_report_survives_a_round_trip(tmp_path):
    report = refuted(tmp_path / "source.py")
    without = [image.model_copy(update={"clean": [], "adversarial": []}) for image in report.images]
    assert Report.model_validate_json(report.to_json()) == report.model_copy(update={"images": without})


def test_non_finite_statistics_become_null():
    finding = MaskingFinding(mechanism="exploding", symptom="", statistics={"largest": float("inf")})
    written = json.loads(not_refuted().model_copy(update={"masking": [finding]}).to_json())
    assert written["masking"][0]["statistics"]["largest"] is None


def test_unknown_mechanism_and_misspelt_key_are_refused():
    with pytest.raises(ValidationError, match="mechanism"):
        MaskingFinding(mechanism="obfuscated", symptom="")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="sympton"):
        MaskingFinding(mechanism="shattered", symptom="", sympton="")  # type: ignore[call-arg]


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (231, 256), (0, 1)])
def test_interval_equals_an_independent_implementation(successes, n):
    other = binomtest(successes, n).proportion_ci(0.95, method="exact")
    assert clopper_pearson(successes, n) == pytest.approx((other.low, other.high), abs=1e-9)


@pytest.mark.parametrize("p", [0.03, 0.5, 0.91])
def test_interval_covers_at_its_level(p):
    n = 60
    covered = sum(
        binom.pmf(k, n, p) for k in range(n + 1) if clopper_pearson(k, n)[0] <= p <= clopper_pearson(k, n)[1]
    )
    assert covered >= 0.95


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 500), share=st.floats(0, 1))
def test_fractional_successes_widen_the_interval(n, share):
    successes = share * n
    low, high = clopper_pearson(successes, n)
    for whole in (int(successes), min(n, int(successes) + 1)):
        inner = clopper_pearson(whole, n)
        assert low <= inner[0] + 1e-9 or successes == pytest.approx(whole + 1, abs=1e-6)
        assert (
            high >= inner[1] - 1e-9
            or successes == pytest.approx(whole, abs=1e-6)
            or whole > successes + 1 - 1e-6
        )


def test_rounding_error_is_no_fraction():
    assert clopper_pearson(231.9999999, 256) == clopper_pearson(232, 256) == clopper_pearson(232.0000001, 256)


@pytest.mark.parametrize(
    ("word", "claim", "status"),
    [("refuted", 0.5, 1), ("not_refuted", 0.5, 0), ("certified", 0.5, 0), ("inconclusive", 0.5, 3),
     ("inconclusive", None, 0)],
)  # fmt: skip
def test_exit_status(word, claim, status):
    assert not_refuted().model_copy(update={"verdict": word, "claim": claim}).exit_status == status
