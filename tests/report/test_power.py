"""What so few examples can refute at all, and the heading where nothing was claimed."""

import pytest
from scipy.stats import beta
from tests.report.sample import not_refuted

from unmask.report.words import headline, power_sentence, verdict_sentence


def of(examples, claim):
    return not_refuted().model_copy(update={"examples": examples, "claim": claim})


@pytest.mark.parametrize(("examples", "claim"), [(1, 0.9), (20, 0.1), (8, 0.36), (100, 0.036)])
def test_a_claim_that_no_attack_could_refute_is_named(examples, claim):
    # The exact upper end of 0 of n is 1 - 0.025 ** (1 / n) (Clopper & Pearson 1934).
    assert claim <= 1 - 0.025 ** (1 / examples)
    assert f"{examples} examples cannot refute a claim of" in power_sentence(of(examples, claim))


@pytest.mark.parametrize(("examples", "claim"), [(20, 0.5), (20, 1.0), (100, 0.9), (1000, 0.01), (8, 0.37)])
def test_how_many_may_survive(examples, claim):
    ends = [float(beta.ppf(0.975, k + 1, examples - k)) for k in range(examples)]
    survive = max(k for k, end in enumerate(ends) if end < claim)
    assert f"{examples} examples refute this claim if at most {survive} survive" in power_sentence(
        of(examples, claim)
    )


def test_without_a_claim_it_was_measured_unless_it_proves_nothing():
    bare = of(50, None)
    assert headline(bare) == "Measured"
    assert power_sentence(bare) == ""
    assert verdict_sentence(bare).startswith("No claim was given")
    assert headline(bare.model_copy(update={"verdict": "inconclusive"})) == "Inconclusive"
    assert headline(of(50, 0.5)) == "Not refuted"
