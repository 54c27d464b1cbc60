"""The forecast of an audit's time: passes by the plan, seconds by the network."""

import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from unmask.attacks import FAB, FGSM
from unmask.audit.campaign.plan import QUICK, STANDARD, THOROUGH, Budget, Stage
from unmask.audit.context import subject_of
from unmask.audit.prepare import look_over, looked_over
from unmask.audit.runtime.forecast import CONTROLS, RACERS, TRACE, Forecast, Pace, forecast, pace, say
from unmask.claim.claim import Claim
from unmask.data import load
from unmask.state import State


def digits_network():
    """The nearest mean."""
    data = load("digits", split="train")
    means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
    linear = nn.Linear(64, 10)
    linear.weight.data, linear.bias.data = 2 * means, -(means**2).sum(1)
    return nn.Sequential(nn.Flatten(), linear).eval()


class Told:
    def __init__(self):
        self.notes = []

    def stage(self, name): ...

    def update(self, upper_bound, done, total): ...

    def finding(self, finding): ...

    def note(self, text):
        self.notes.append(text)


class Slow(nn.Module):
    """Sleeps a known time for each image, in the forward and in the backward pass."""

    def __init__(self, seconds):
        super().__init__()
        self.layer, self.seconds = nn.Linear(64, 10), seconds

    def forward(self, x):
        time.sleep(self.seconds * len(x))
        out = self.layer(x.flatten(1))
        if out.requires_grad:
            out.register_hook(lambda grad: time.sleep(self.seconds * len(grad)))
        return out


def subject_and_facts(network, budget="quick", examples=12, progress=None):
    claim = Claim(norm="linf", epsilon=0.1, budget=budget)
    subject = subject_of(
        network,
        load("digits", examples=examples),
        claim,
        out=None,
        resume=False,
        progress=progress,
        attacks=[],
    )
    held = State(subject.classifier.network)
    facts, size = look_over(subject, held)
    return looked_over(subject, facts, size, held), facts


def test_the_pace_is_the_networks():
    subject, facts = subject_and_facts(Slow(0.004).eval())
    found = pace(subject, facts)
    assert 0.004 <= found.forward < 0.1  # a busy machine takes longer, never less
    assert 0.008 <= found.estimate < 0.2


def test_the_sum_is_that_of_the_plan():
    subject, facts = subject_and_facts(digits_network())
    facts = replace(facts, clean_accuracy=0.5)
    budget = Budget(
        naive_steps=7,
        race_examples=3,
        race_steps=5,
        steps=11,
        lines=(
            (
                Stage(name="a", attack=FGSM(), fraction=0.5),
                Stage(name="b", attack=FAB(steps=10, targets=3, one_by_one=True)),
            ),
        ),
        black_box_queries=13,
        draws=1,
        control_examples=2,
        relaxation=0,
    )
    found = forecast(subject, facts, budget, Pace(1.0, 10.0))
    always = 6 * 7 + TRACE + RACERS * 3 * 5 + CONTROLS * 2  # half of 12 images are right
    assert found.least == pytest.approx(10 * always)
    estimates, forwards = 11 + 0.5 * 1 + 30, 13 + 1 + 3 * 15
    assert found.most == pytest.approx(10 * (always + 6 * estimates) + 6 * forwards)


def test_budgets_cost_more_the_larger_they_are():
    subject, facts = subject_and_facts(digits_network(), examples=40)
    one = pace(subject, facts)
    quick, standard, thorough = (forecast(subject, facts, b, one) for b in (QUICK, STANDARD, THOROUGH))
    assert (quick.beside, standard.beside) == ((), ("branches",))
    assert quick.least < standard.least
    assert quick.most < standard.most < thorough.most


def test_what_cannot_end_within_an_hour_is_said():
    slow = Forecast(Pace(2.0, 8.0), least=7300.0, most=90000.0)
    assert "standard cannot end within an hour here, it takes at least 2.0 h" in slow.sentence(
        "standard", 1200.0
    )
    assert "--budget quick takes at least 20 min" in slow.sentence("standard", 1200.0)
    assert "--budget" not in slow.sentence("quick", 7300.0)
    fast = Forecast(Pace(0.002, 0.008), least=42.0, most=600.0)
    assert fast.sentence("quick", 42.0) == (
        "a forward pass takes 2 ms an image, a gradient 8 ms: about 42 s if images fall at once, at most 10 min if "
        "all hold out"
    )
    assert replace(fast, beside=("branches",)).sentence("quick", 42.0).endswith("hold out, without branches")


def test_a_network_without_a_gradient_has_a_forecast():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = digits_network()

        def forward(self, x):
            with torch.no_grad():
                return self.layer(x)

    told = Told()
    subject, facts = subject_and_facts(Hidden().eval(), progress=told)
    assert not facts.gradient_available
    say(subject, facts)
    assert sum("if all hold out" in note for note in told.notes) == 1
