"""Randomised smoothing, told by nothing but its own certificate, comes out certified; a claim above it does not."""

from dataclasses import replace
from pathlib import Path

import pytest

from unmask.audit.context import subject_of
from unmask.audit.optional.certificates import certified_share
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.target.target import load_target
from unmask.threat import L2

EXAMPLE = Path(__file__).parents[2] / "examples" / "smoothed_network.py"


@pytest.fixture(scope="module")
def smoothed():
    return load_target(f"{EXAMPLE}:network")


def report_on(smoothed, claim, passes):
    data = load("digits", examples=10)
    return audit(smoothed, data, claim_about(L2(epsilon=0.2), claim=claim, budget="quick", passes=passes))


def test_the_bound_of_an_audit_is_the_defences_own(smoothed):
    data = load("digits", examples=10)
    subject = subject_of(smoothed, data, claim_about(L2(epsilon=0.2), budget="quick", batch_size=64))
    share, words = certified_share(subject, subject.everyone[:0])
    # 100 votes of the example's own `passes`; a smaller ball, a larger share.
    assert share is not None
    assert 0.7 < share <= 1
    assert words is not None
    assert "votes of 100" in words
    wider = replace(subject, threat=L2(epsilon=0.4))
    further, _ = certified_share(wider, subject.everyone)
    assert further is not None
    assert further < share
    without = replace(subject, classifier=subject.classifier.replace(certificate=None))
    assert certified_share(without, subject.everyone) == (None, None)


@pytest.mark.slow
def test_a_claim_below_the_certified_accuracy_is_certified(smoothed):
    report = report_on(smoothed, 0.7, passes=20)
    assert report.verdict == "certified"
    assert report.stochastic
    assert report.passes == 20
    assert report.certified_accuracy is not None
    assert 0.7 <= report.certified_accuracy <= report.robust_accuracy
    assert report.certificate is not None
    assert "Cohen" in report.certificate
    assert "0.999" in report.certificate
    assert not [finding for finding in report.masking if finding.mechanism == "shattered"]


@pytest.mark.slow
def test_a_claim_above_it_is_not(smoothed):
    report = report_on(smoothed, 0.98, passes=2)  # 1, the default, would leave the defence its own hundred
    assert report.verdict != "certified"
    assert report.certified_accuracy is not None
    # Two votes are worth less than twenty, and so is what is proved about them.
    assert 0.5 < report.certified_accuracy < 0.98
