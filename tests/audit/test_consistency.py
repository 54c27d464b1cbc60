"""The final judgement against every other measurement of the same audit."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from unmask.audit.controls.check import SEARCH
from unmask.audit.controls.consistency import consistency
from unmask.audit.controls.reopening import Controlled
from unmask.audit.controls.run import Examined
from unmask.diagnostics import Reading, Tried
from unmask.judge import Judgement
from unmask.threat import Linf

N, K = 40, 16
THREAT = Linf(epsilon=0.1)


def judgement(rates, losses=None):
    ones = torch.ones(len(rates), dtype=torch.bool)
    rates = torch.as_tensor(rates, dtype=torch.float32)
    losses = torch.where(rates > 0.5, 1.0, -1.0) if losses is None else losses
    return Judgement(rates, ones, ones, losses, torch.zeros(len(rates), dtype=torch.long))


def controlled(rates, *, ahead=False, draws=4):
    point = Tried(
        by="black", threat=THREAT, x_adv=torch.zeros(len(rates), 1), failure_rate=rates, draws=draws
    )
    reading = Reading(name="black_box", passed=True, value=0, expected="", explanation="", tried=(point,))
    return Controlled([Examined(SEARCH, reading)], ahead, len(rates), reopened=False)


def asked(final, found, *, random=False, rate=None, naive=None, clean=None, draws=1, **subject):
    claim = SimpleNamespace(queries=subject.pop("queries", None))
    subject = SimpleNamespace(**{"random": random, "claim": claim, "threat": THREAT} | subject)
    standing = SimpleNamespace(rate=final.failure_rate.double() if rate is None else rate, draws=16)
    clean = clean or judgement(torch.zeros(N), torch.full((N,), -1.0))
    return consistency(subject, standing, naive, clean, final, draws, found)


def test_what_a_batch_draws_together_explains_a_larger_gap():
    final, found = judgement(torch.full((N,), 0.5)), controlled(torch.full((K,), 0.85), draws=8)
    alone = asked(final, found, random=True, draws=64)
    assert not alone.passed
    together = replace(final, shared=torch.full((N,), N / 4.0))
    assert asked(together, found, random=True, draws=64).passed


def some(count, of=N):
    return (torch.arange(of) < count).float()


def test_a_campaign_that_left_least_passes():
    control = asked(judgement(some(10)), controlled(some(10, K)), naive=some(5))
    assert control.passed
    assert (control.value, control.role) == (0, None)


@pytest.mark.parametrize(
    "against",
    [
        {"found": controlled(some(11, K))},
        {"naive": some(11)},
        {"clean": judgement(some(11))},
        {"rate": some(11).double()},
    ],
    ids=["a control", "the standard attack", "the images as they came", "its own journal"],
)
def test_one_example_that_any_part_broke_is_enough(against):
    control = asked(judgement(some(10)), **{"found": controlled(some(10, K))} | against)
    assert not control.passed
    assert control.role == "open"
    assert control.decisive


def test_a_margin_loss_that_rounds_to_either_side_is_no_contradiction():
    losses = torch.full((N,), -1.0)
    losses[10] = -1e-6
    close = judgement(some(10), losses)
    assert asked(close, controlled(some(11, K))).passed
    losses[10] = -1e-2
    assert not asked(judgement(some(10), losses), controlled(some(11, K))).passed


def test_under_a_limit_on_queries_each_control_is_another_adversary():
    assert asked(judgement(some(10)), controlled(some(11, K)), queries=100).passed


def test_under_a_targeted_goal_being_wrong_is_not_being_there():
    targeted = replace(THREAT, goal="targeted")
    assert asked(
        judgement(some(10)), controlled(some(10, K)), clean=judgement(some(20)), threat=targeted
    ).passed


def test_noise_of_a_random_network_raises_no_alarm_and_a_gap_does():
    generator = torch.Generator().manual_seed(0)
    alarms = 0
    for _ in range(200):
        true = torch.rand(N, generator=generator)
        final = (torch.rand(64, N, generator=generator) < true).float().mean(0)
        seen = (torch.rand(4, K, generator=generator) < true[:K]).float().mean(0)
        alarms += not asked(judgement(final), controlled(seen), random=True, draws=64).passed
    assert alarms <= 2
    final = torch.full((N,), 0.2)
    control = asked(judgement(final), controlled(torch.full((K,), 0.75)), random=True, draws=64)
    assert control.role == "open"
    assert control.value == pytest.approx(0.55)


def test_what_the_controls_found_must_hold_elsewhere_too():
    only_there, everywhere = judgement(some(14)), judgement((torch.arange(N) % 4 != 0).float())
    assert not asked(only_there, controlled(some(14, K), ahead=True)).passed
    assert asked(only_there, controlled(some(14, K), ahead=False)).passed  # the campaign found them itself
    assert asked(everywhere, controlled(everywhere.failure_rate[:K], ahead=True)).passed


@pytest.mark.parametrize(
    ("broken", "ran_on", "passed"),
    [
        (range(16), range(16), False),  # nothing after the first attack breaks anything
        (range(0, 32, 2), range(0, 32, 2), False),  # wherever they stand
        (range(30), range(16), True),
        (range(4), range(16), True),  # as luck has it
        (range(0), range(16), True),
        (range(N), range(16), True),
        (range(16), range(N), True),  # there are no others
    ],
)
def test_examples_that_only_the_first_attack_broke(broken, ran_on, passed):
    rates = torch.zeros(N)
    rates[list(broken)] = 1
    found = replace(controlled(torch.zeros(K)), at_first=torch.tensor(list(ran_on)))
    control = asked(judgement(rates), found)
    assert control.passed is passed
    if not passed:
        assert "no longer answers as it did" in control.explanation
        assert control.role == "open"
