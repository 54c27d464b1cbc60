"""A robustness claim as a test: `pytest examples`."""

from pathlib import Path

from unmask import Linf, assert_claim

NETWORK = Path(__file__).with_name("digits_network.py")


def test_three_quarters_survive_a_perturbation_of_a_tenth():
    """Naming the network by its file lets a failure say which command repeats the audit."""
    report = assert_claim(f"{NETWORK}:network", "digits", Linf(epsilon=0.1), at_least=0.75, examples=100)
    assert report.clean_accuracy > 0.9
