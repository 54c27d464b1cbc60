"""No verdict stands beside evidence of the same audit that speaks against it."""

from dataclasses import replace

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn

from unmask.audit.campaign.attack_runner import Campaign
from unmask.audit.campaign.plan import BUDGETS
from unmask.audit.campaign.race import Race
from unmask.audit.campaign.standing import Standing
from unmask.audit.controls.consistency import NAME
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.threat import Linf

EPSILON, EXAMPLES, CLAIM = 0.15, 60, 0.5
DATA = load("digits", examples=EXAMPLES)


def audited(network, claim=CLAIM, **options):
    return audit(network, DATA, claim_about(Linf(epsilon=EPSILON), claim=claim, budget="quick"), **options)


@pytest.fixture(scope="module")
def right():
    """What an undisturbed audit of the plain network finds."""
    return audited(trained("plain_cnn"), claim=None)


class TwoFaced(nn.Module):
    """The plain network to some callers; to others one that moves every image to the nearest clean one first."""

    def __init__(self):
        super().__init__()
        self.base = trained("plain_cnn")
        self.calls = 0
        self.register_buffer("known", load("digits", split="test").x)

    def shows_its_face(self, x):
        raise NotImplementedError

    def forward(self, x):
        self.calls += 1
        if self.shows_its_face(x):
            return self.base(x)
        nearest = torch.cdist(x.flatten(1), self.known.flatten(1)).argmin(1)
        return self.base(self.known[nearest])


class ByHalfBatch(TwoFaced):
    def shows_its_face(self, x):
        return len(x) <= 16


class ByLargeBatch(TwoFaced):
    def shows_its_face(self, x):
        return len(x) < 50


class ByGradient(TwoFaced):
    def shows_its_face(self, x):
        return x.requires_grad


class ByAge(TwoFaced):
    def shows_its_face(self, x):
        return self.calls % 7 < 4


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(ByHalfBatch, marks=pytest.mark.slow),
        ByLargeBatch,
        ByGradient,
        pytest.param(ByAge, marks=pytest.mark.slow),
    ],
)
def test_a_network_of_two_faces_is_never_called_not_refuted(network, right):
    try:
        report = audited(network().eval())
    except UnusableInput:
        return  # told at the door
    fair = right.robust_accuracy + 0.1
    assert report.verdict in ("inconclusive", "refuted") or report.robust_accuracy <= fair, report.controls
    for point in report.accuracy_against_epsilon:
        if point.epsilon <= EPSILON and report.verdict == "not_refuted":
            assert report.robust_accuracy <= 1 - (1 - point.accuracy) * point.examples / EXAMPLES + 1e-6


def the(report, name):
    return next(c for c in report.controls if c.name == name)


def test_an_undisturbed_audit_agrees_with_itself(right):
    assert the(right, NAME).passed
    assert right.verdict == "not_refuted"
    assert all(c.role is None for c in right.controls if c.passed)


def no_campaign(self, entrants, suspicious, extra):
    return Race.unrun(entrants)


def no_attack(self, name, recipe, attack, chosen):
    return self.step(name, recipe, lambda part, _: self.x[part], chosen)[0]


def test_what_the_controls_find_and_how_counts_for_all(monkeypatch, right):
    """A campaign that runs nothing at all: the controls' attacks must run in its place."""
    monkeypatch.setattr(Campaign, "naive", lambda self, clean: 1 - float(clean.mean()))
    monkeypatch.setattr(Campaign, "run", no_campaign)
    report = audited(trained("plain_cnn"), claim=None)
    assert report.robust_accuracy <= right.robust_accuracy + 0.1
    assert any("as the control" in attack.recipe for attack in report.attacks)
    assert the(report, NAME).passed


def test_a_campaign_that_finds_nothing_proves_nothing(monkeypatch):
    """Attacks that are all broken, at least where the audit runs them; the controls run their own."""
    monkeypatch.setattr(Standing, "attack", no_attack)
    report = audited(trained("plain_cnn"), claim=0.2)
    assert report.verdict == "inconclusive"
    assert the(report, NAME).role == "open"
    few = max(point.examples for point in report.accuracy_against_epsilon)
    assert report.robust_accuracy <= 1 - 0.5 * few / EXAMPLES  # their points count all the same


def test_points_that_only_the_curve_found_enter(monkeypatch):
    monkeypatch.setattr(Standing, "attack", no_attack)
    report = audited(trained("plain_cnn"), claim=None)
    inside = [p for p in report.accuracy_against_epsilon if p.epsilon <= EPSILON]
    fell = max((1 - p.accuracy) * p.examples for p in inside)
    assert fell > 0
    assert (1 - report.robust_accuracy) * EXAMPLES >= fell - 1e-4


class Flat(nn.Module):
    """Rounds to a grid so fine that the image hardly changes, behind which no gradient leads back."""

    def __init__(self):
        super().__init__()
        self.base = trained("plain_cnn")

    def forward(self, x):
        return self.base(torch.round(32 * x) / 32)


def without_repairs(monkeypatch):
    import unmask.audit.run as run

    monkeypatch.setattr(run, "candidates", lambda *args, **options: _exact_alone(*args, **options))


def _exact_alone(*args, **options):
    from unmask.remedies import candidates

    return candidates(*args, **options)[:1]


def test_a_masking_that_no_repair_undoes_reopens_the_campaign(monkeypatch, right):
    """The exact gradient, which is zero, alone in the race: search without gradients must take its place."""
    without_repairs(monkeypatch)
    monkeypatch.setattr(
        "unmask.audit.campaign.attack_runner.STUBBORN", 2.0
    )  # nothing but the controls can ask for it
    monkeypatch.setitem(BUDGETS, "quick", replace(BUDGETS["quick"], lines=()))  # and no walk wins before
    report = audited(Flat().eval(), claim=None)
    assert the(report, "gradient against finite difference, exact").role is not None
    recipes = " ".join(attack.recipe for attack in report.attacks)
    assert "Square-300" in recipes
    # Nothing runs where nothing is left.
    assert report.robust_accuracy == 0 or "finite differences of the whole network" in recipes
    assert report.robust_accuracy <= right.robust_accuracy + 0.2
    assert the(report, NAME).passed


def test_a_repaired_masking_is_a_symptom_and_decides_nothing():
    report = audited(Flat().eval(), claim=None)
    failed = {c.name: c.role for c in report.controls if c.passed is False}
    assert failed["gradient against finite difference, exact"] == "symptom"
    assert "open" not in failed.values()
    assert report.verdict == "not_refuted"  # no claim: nothing to refute


def test_resumed_controls_say_the_same(tmp_path):
    first = audited(Flat().eval(), claim=None, out=tmp_path)
    again = audited(Flat().eval(), claim=None, out=tmp_path, resume=True)
    for key in ("controls", "robust_accuracy", "verdict", "accuracy_against_epsilon"):
        assert getattr(first, key) == getattr(again, key)
    assert (first.cost.forwards, first.cost.judge_forwards) == (
        again.cost.forwards,
        again.cost.judge_forwards,
    )
