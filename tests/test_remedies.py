"""Entrants of the race."""

import pytest
import torch
from tests.fixtures import BROKEN
from torch import nn

from unmask.classifier import Classifier, Meter
from unmask.data import load
from unmask.defenses import JPEG
from unmask.gradients import BPDA, EOT
from unmask.randomness import Streams
from unmask.remedies import candidates, per_element
from unmask.threat import L1, L2, Linf
from unmask.tracing.analyse import analyse

DATA = load("digits", examples=8)


def entrants(name, draws):
    case = next(c for c in BROKEN if c.name == name)
    classifier = Classifier(case.build())
    streams = Streams.seeded(0, DATA.index, "trace")
    threat = Linf(epsilon=case.epsilon)
    analysis = analyse(classifier, DATA.x, DATA.y, threat, seed=0, generator=streams)
    found = candidates(analysis, threat, deterministic=not case.random, detector=False, draws=draws)
    return classifier, found


def test_no_entrant_of_a_random_network_costs_much_more_than_another():
    """Never more than the draws allow, or twice the forwards that one estimate needs anyway."""
    classifier, found = entrants("quantised_noise", draws=16)
    assert {c.passes for c in found} == {1, 9, 33}
    for entrant in found:
        assert isinstance(entrant.gradient, EOT)
        counted = classifier.replace(meter=Meter())
        streams = Streams.seeded(0, DATA.index, entrant.name)
        entrant.gradient.estimate(counted, entrant.objective, DATA.x, DATA.y, generator=streams)
        assert counted.meter.forwards <= max(16, 2 * entrant.passes) * len(DATA), entrant.name
        assert counted.meter.forwards >= entrant.passes * len(DATA), entrant.name
    assert torch.equal(DATA.x, load("digits", examples=8).x)


def test_the_passes_of_an_entrant_are_those_of_one_estimate():
    classifier, found = entrants("bit_depth", draws=16)
    assert {c.passes for c in found} == {1, 9, 33}
    for entrant in found:
        counted = classifier.replace(meter=Meter())
        streams = Streams.seeded(0, DATA.index, entrant.name)
        entrant.gradient.estimate(counted, entrant.objective, DATA.x, DATA.y, generator=streams)
        assert counted.meter.forwards == entrant.passes * len(DATA), entrant.name


def test_a_defence_of_ours_brings_its_surrogate():
    """Where the classifier has one; a network alone has not."""
    classifier = JPEG().wrap(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), deterministic=True))
    streams = Streams.seeded(0, DATA.index, "trace")
    threat = Linf(epsilon=0.1)
    analysis = analyse(classifier, DATA.x, DATA.y, threat, seed=0, generator=streams)
    told = candidates(analysis, threat, deterministic=True, detector=False, draws=16, surrogate=True)
    alone = candidates(analysis, threat, deterministic=True, detector=False, draws=16)
    (entrant,) = [c for c in told if c.name not in {c.name for c in alone}]
    assert entrant.gradient == BPDA()
    assert set(entrant.at.values()) == {"the surrogate that the defence brings"}
    random = candidates(analysis, threat, deterministic=False, detector=False, draws=16, surrogate=True)
    assert EOT(BPDA(), max_draws=8) in [c.gradient for c in random]


@pytest.mark.parametrize(
    ("threat", "expected"),
    [(Linf(epsilon=0.1), 0.1), (L2(epsilon=2), 0.25), (L1(epsilon=32), 0.5)],
)
def test_widths_follow_from_epsilon_and_dimension(threat, expected):
    assert per_element(threat, DATA.x) == pytest.approx(expected)
