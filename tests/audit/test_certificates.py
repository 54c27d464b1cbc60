"""Which images a certificate is tried on, and what is said of how many."""

from types import SimpleNamespace

import pytest
import torch
from tests.fixtures.digits_networks import trained

from unmask.audit.optional import certificates
from unmask.audit.optional.certificates import certified_share
from unmask.audit.runtime.progress import Silent
from unmask.bounds import certify, proving
from unmask.bounds.relaxation.size import hidden_elements
from unmask.classifier import Classifier
from unmask.data import load
from unmask.threat import Linf

DATA = load("digits", examples=40)


def subject(relaxation, epsilon=0.02):
    return SimpleNamespace(
        classifier=Classifier(trained("plain_mlp"), deterministic=True),
        threat=Linf(epsilon=epsilon),
        x=DATA.x,
        aim=DATA.y,
        index=torch.arange(len(DATA)),
        random=False,
        progress=Silent(),
        budget=SimpleNamespace(relaxation=relaxation),
    )


@pytest.fixture
def asked(monkeypatch):
    """Every image that each method was asked about."""
    seen = {"interval": [], "crown": []}

    def spy(network, x, y, threat, *, methods):
        seen[methods[0]] += [x[n] for n in range(len(x))]
        return certify(network, x, y, threat, methods=methods)

    monkeypatch.setattr(certificates, "certify", spy)
    return seen


def right():
    with torch.no_grad():
        return (trained("plain_mlp")(DATA.x).argmax(1) == DATA.y).nonzero()[:, 0]


def test_one_image_too_many_takes_nothing_from_the_others(asked):
    left = right()
    hidden = hidden_elements(trained("plain_mlp"), DATA.x[:1])
    whole, _ = certified_share(subject(hidden * len(left)), left)
    short, words = certified_share(subject(hidden * (len(left) - 1)), left)
    assert short >= whole - 1 / len(DATA) - 1e-9
    assert whole > 0.3
    assert f"of the {len(left)} open images" in words


@pytest.mark.parametrize("bought", [0, 5, 17])
def test_as_many_as_the_budget_buys(asked, bought):
    left = right()
    hidden = hidden_elements(trained("plain_mlp"), DATA.x[:1])
    _, words = certified_share(subject(hidden * bought), left)
    assert len(asked["crown"]) == bought
    assert ("linear ones tried on" in words) == bool(bought)


def test_nothing_is_tried_on_what_an_attack_broke(asked):
    left = right()[:6]
    share, words = certified_share(subject(10**7), left)
    tried = asked["interval"] + asked["crown"]
    assert all(any(torch.equal(t, DATA.x[n]) for n in left) for t in tried)
    assert share <= 6 / len(DATA)
    assert "6 open images" in words
    asked["interval"].clear()
    assert certified_share(subject(10**7), left[:0]) == (None, None)
    assert asked["interval"] == []


def test_an_undefended_network_is_left_after_the_pilot(asked):
    certified_share(subject(10**7, epsilon=0.3), right())
    assert len(asked["crown"]) == proving.PILOT


def test_nothing_is_relaxed_where_nothing_is_bought_or_open(asked):
    left = right()
    _, words = certified_share(subject(0, epsilon=0.1), left)
    assert words.startswith("interval bounds")
    certified_share(subject(10**9, epsilon=0.0), left)  # intervals prove all: no image is open
    assert not asked["crown"]


def test_intervals_of_a_large_network_are_taken_image_by_image(monkeypatch):
    left, batches = right(), []

    def spy(network, x, y, threat, *, methods):
        batches.append(len(x))
        return certify(network, x, y, threat, methods=methods)

    whole = certified_share(subject(0), left)
    monkeypatch.setattr(certificates, "certify", spy)
    monkeypatch.setattr(proving, "ROWS", 1)
    assert certified_share(subject(0), left) == whole
    assert batches == [1] * len(left)
