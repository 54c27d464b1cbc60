"""The verdict is a rule over the report's own numbers, and no number in it may speak against another."""

import pytest
from tests.report.sample import not_refuted

from unmask.audit.records import AccuracyAtEpsilon, Control
from unmask.audit.verdict import contradictions, undecided, verdict, verdict_of
from unmask.statistics import clopper_pearson

FAILED = Control(name="null attack", passed=False, decisive=True)
MINOR = Control(name="noise", passed=False)
ABSENT = Control(name="certificate", passed=None, decisive=True)
OPEN = Control(name="search", passed=False, role="open")
SYMPTOM = Control(name="search", passed=False, decisive=True, role="symptom")
AGAINST = ["more survive than are right"]


@pytest.mark.parametrize(
    ("expected", "facts"),
    [
        ("refuted", {"claim": 0.5, "interval": (0.3, 0.49)}),
        ("not_refuted", {"claim": 0.5, "interval": (0.3, 0.5)}),
        ("not_refuted", {"claim": 0.5, "interval": (0.6, 0.8)}),
        ("certified", {"claim": 0.5, "interval": (0.6, 0.8), "certified_accuracy": 0.5}),
        ("not_refuted", {"claim": 0.5, "interval": (0.6, 0.8), "certified_accuracy": 0.49}),
        ("inconclusive", {"claim": 0.5, "interval": (0.6, 0.8), "controls": [FAILED]}),
        ("inconclusive", {"claim": 0.5, "interval": (0.6, 0.8), "controls": [MINOR, OPEN]}),
        ("not_refuted", {"claim": 0.5, "interval": (0.6, 0.8), "controls": [MINOR, SYMPTOM]}),
        ("inconclusive", {"claim": 0.5, "interval": (0.6, 0.8), "contradictions": AGAINST}),
        ("refuted", {"claim": 0.5, "interval": (0.1, 0.2), "controls": [FAILED], "contradictions": AGAINST}),
        ("certified", {"claim": 0.5, "interval": (0.6, 0.8), "certified_accuracy": 0.7, "controls": [OPEN]}),
        ("inconclusive",
         {"claim": 0.5, "interval": (0.6, 0.8), "certified_accuracy": 0.7, "contradictions": AGAINST}),
        ("not_refuted", {"claim": 0.5, "interval": (0.6, 0.8), "controls": [MINOR]}),
        ("not_refuted", {"claim": 0.5, "interval": (0.6, 0.8), "controls": [ABSENT]}),
        ("not_refuted", {"claim": None, "interval": (0.1, 0.2)}),
        ("inconclusive", {"claim": None, "interval": (0.1, 0.2), "controls": [OPEN]}),
    ],
)  # fmt: skip
def test_verdict(expected, facts):
    assert verdict(**facts) == expected


def test_open_failures_decide_and_explained_ones_do_not():
    assert undecided([FAILED, MINOR, ABSENT, OPEN, SYMPTOM]) == [FAILED, OPEN]


def report(**numbers):
    """A report of 100 examples, 60 of which survive and no control of which failed."""
    usual = {
        "examples": 100, "robust_accuracy": 0.6, "robust_accuracy_interval": clopper_pearson(60, 100),
        "clean_accuracy": 0.9, "naive_robust_accuracy": 0.7, "certified_accuracy": 0.2, "claim": 0.55,
        "controls": [], "accuracy_against_epsilon": [], "verdict": "not_refuted",
    }  # fmt: skip
    return not_refuted().model_copy(update=usual | numbers)


def curve(radius, accuracy, examples=50):
    epsilon = not_refuted().threat.epsilon
    return [AccuracyAtEpsilon(epsilon=radius * epsilon, accuracy=accuracy, examples=examples)]


TARGETED = not_refuted().threat.model_copy(update={"goal": "targeted"})


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"clean_accuracy": 0.59}, "right without one"),
        ({"naive_robust_accuracy": 0.5}, "standard attack alone"),
        ({"certified_accuracy": 0.7}, "certified"),
        ({"certified_accuracy": 0.99, "stochastic": True}, "certified"),
        ({"accuracy_against_epsilon": curve(1.0, 0.1)}, "curve"),  # 45 of 100 fell there, 40 all in all
        ({"accuracy_against_epsilon": curve(0.25, 0.1)}, "curve"),
    ],
)
def test_numbers_that_contradict_each_other_decide_nothing(numbers, words):
    found = contradictions(report(**numbers))
    assert len(found) == 1, found
    assert words in found[0]
    assert verdict_of(report(**numbers)) == "inconclusive"
    assert verdict_of(report(**numbers, claim=0.99)) == "refuted"  # what fell has fallen


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"clean_accuracy": 0.6, "naive_robust_accuracy": 0.6, "certified_accuracy": 0.6, "claim": 0.61},
        {"clean_accuracy": 0.6 - 1e-7},  # a mean of float32 rates
        {"clean_accuracy": 0.59, "threat": TARGETED},  # wrong without an attack, and yet not at the target
        {"clean_accuracy": 0.59, "naive_robust_accuracy": 0.58, "stochastic": True},  # noise on both sides
        {"naive_robust_accuracy": 0.1, "knowledge": "labels"},  # it sees the network, the adversary does not
        {"naive_robust_accuracy": None, "certified_accuracy": None},
        {"accuracy_against_epsilon": curve(1.0, 0.2)},  # exactly the 40 that fell
        {"accuracy_against_epsilon": curve(1.5, 0.0)},  # outside the ball
        {"accuracy_against_epsilon": curve(1.0, 0.0, examples=None)},  # of how many, nobody knows
    ],
)
def test_a_sound_report_says_nothing_against_itself(numbers):
    assert contradictions(report(**numbers)) == []
    assert verdict_of(report(**numbers)) == "not_refuted"
