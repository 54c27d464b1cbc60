"""What each symptom says of a place, word by word, and of one that hides nothing."""

import pytest
from tests.tracing.named import BY_NAME

from unmask.tracing.intercept.sites import Site
from unmask.tracing.suspect import Measurements, Suspect

NAN = float("nan")


def suspect(name, share=NAN, kind="torch", **statistics):
    return Suspect(BY_NAME[name], "torch.f", Site("net.py", 3), ("f", "net.py", 3), kind, share, statistics)


THROUGH = "42% of the change of the logits passes through it"
ROWS = [
    (suspect("zero", 0.42), f"its gradient is exactly zero, yet {THROUGH}"),
    (
        suspect("zero", 1.0),
        "its gradient is exactly zero, yet all of the change of the logits passes through it",
    ),
    (suspect("zero"), "its gradient is exactly zero"),
    (suspect("discrete", 0.42), f"its result has no gradient, yet {THROUGH}"),
    (suspect("cut", 0.42), f"the gradient is cut here, yet {THROUGH}"),
    (suspect("opaque", 0.42), f"the gradient is cut here, yet {THROUGH}"),
    (
        suspect("cut", 0.6, jump=0.81),
        "no gradient leads through, yet 60% of the change of the logits passes through it, and the smallest move "
        "changes them as much as the largest: a pseudo-random function of the input",
    ),
    (
        suspect("cut", 0.6, jump=0.8),
        "the gradient is cut here, yet 60% of the change of the logits passes through it",
    ),
    (
        suspect("cut", 0.5, jump=1.0),
        "the gradient is cut here, yet 50% of the change of the logits passes through it",
    ),
    (suspect("cut", 0.6), "the gradient is cut here, yet 60% of the change of the logits passes through it"),
    (
        suspect("effect", decided_at_line=17.0),
        "the decision of line 17, which has no gradient, takes effect here",
    ),
    (suspect("vanished", killed=0.25), "on 25% of the examples the gradient dies here"),
    (suspect("vanished"), "on 0% of the examples the gradient dies here"),
    (
        suspect("saturated"),
        "its output changes although its own derivative is practically zero: it is saturated",
    ),
    (suspect("non_finite", spoiled=0.5), "on 50% of the examples the gradient becomes NaN or infinite here"),
    (suspect("non_finite"), "on 0% of the examples the gradient becomes NaN or infinite here"),
    (suspect("random", change_of_logits=0.12345), "it draws random numbers: a logit moves by up to 0.123"),
    (suspect("random"), "it draws random numbers"),
    (
        suspect("underflow", dead_at_logits=0.3, largest_logit=1234.5),
        "logits up to 1.23e+03 saturate the softmax of a cross-entropy: on 30% of the examples its gradient is exactly "
        "zero",
    ),
    (
        suspect("wrong", cosine=-0.25),
        "its gradient does not say how its output changes (cosine -0.25 at the attack's scale)",
    ),
    (
        suspect("wrong"),
        "its gradient does not say how its output changes (cosine nan at the attack's scale)",
    ),
    (suspect("drawn"), "what is drawn here follows the input, and no gradient tells how"),
    (suspect("declared"), "the backward that it declares leads an attack less far than what it computes"),
]


@pytest.mark.parametrize(
    ("one", "says"), ROWS, ids=lambda v: v.symptom.name if isinstance(v, Suspect) else ""
)
def test_what_was_measured_is_said(one, says):
    assert one.symptom.sentence(one) == says


def test_every_symptom_says_something_of_its_own():
    assert {one.symptom.name for one, _ in ROWS} == set(BY_NAME)


def told(name, kind="torch", share=NAN, **measured):
    one = suspect(name, share, kind)
    return one.symptom.harmless(one, Measurements(**({"deterministic": True} | measured)))


def test_what_hides_nothing_is_told_of_noise_and_of_slopes():
    assert told("random", deterministic=False) == "draws random numbers; hides nothing"
    assert told("random") == ""
    slope = "its gradient is not the slope of its output; hides nothing"
    assert told("wrong") == slope
    assert told("wrong", non_finite=0.49) == slope
    assert told("wrong", non_finite=0.5) == ""
    assert told("wrong", non_finite=0.5, share=0.51) == slope
    assert told("wrong", non_finite=0.5, share=0.5) == ""
    assert told("wrong", non_finite=1.0, kind="function") == slope
    others = set(BY_NAME) - {"random", "wrong"}
    assert {told(name, deterministic=False, non_finite=1.0) for name in others} == {""}
