"""What a race credits a repair with."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binom

from unmask.audit.campaign import race as racing
from unmask.audit.campaign.pricing import FEWEST, PATIENCE, payable
from unmask.audit.campaign.race import LUCK, Race, run_race
from unmask.gradients import Exact
from unmask.remedies import Candidate


def race(*rates):
    return Race([], torch.tensor(rates))


def broken(count, of=32):
    return [1.0] * count + [0.0] * (of - count)


@pytest.mark.parametrize("won", [1, 2, 3, 4, 5, 20])
def test_a_repair_is_credited_where_luck_does_not_explain_what_it_broke(won):
    gap = race(broken(0), broken(won)).gap
    by_luck = binom.sf(won - 1, won, 0.5)
    assert gap == pytest.approx(won / 32 if by_luck <= LUCK else 0.0)


def test_what_the_exact_gradient_alone_broke_counts_against_the_repair():
    exact = broken(10)
    assert race(exact, broken(0)).gap == 0
    assert race(exact, exact).gap == 0
    assert race(exact, exact[::-1]).gap == 0  # ten to ten
    assert race(exact, broken(16)).gap == pytest.approx(6 / 32)


def test_the_best_repair_stands_for_all_and_without_any_there_is_no_gap():
    assert race(broken(0), broken(3), broken(8)).gap == pytest.approx(8 / 32)
    assert race(broken(5)).gap == 0
    assert Race.unrun([None]).gap == 0


def test_shares_of_draws_count_by_their_sign():
    assert race([0.1] * 8, [0.6] * 8).gap == pytest.approx(0.5)
    assert race([0.5] * 8, [0.6] * 4 + [0.4] * 4).gap == 0


def entrant(name, seconds, passes=1):
    return Candidate(name, Exact(), passes=passes, seconds=seconds)


def named(entrants):
    return [e.name for e in entrants]


def test_fewer_images_and_then_fewer_entrants_where_a_race_takes_too_long():
    """The patience for 32 images and 10 steps is 320 times `PATIENCE` seconds."""
    names = ("exact", "smooth", "smooth, wide", "identity", "smoothed")

    def raced(*prices):
        images, chosen = payable([entrant(*of) for of in zip(names, prices, strict=True)], 32, 10)
        return images, named(chosen)

    fifth = PATIENCE / 5
    assert raced(*[fifth] * 5) == (32, list(names))
    assert raced(*[2 * fifth] * 5) == (16, list(names))
    assert raced(*[4 * fifth] * 5) == (FEWEST, list(names))
    # At the fewest images four times the patience of one: sixteen fifths are over once two have taken eight.
    assert raced(fifth, 8 * fifth, 8 * fifth, 8 * fifth, fifth) == (
        FEWEST,
        ["exact", "smooth", "identity", "smoothed"],
    )
    assert raced(fifth, 1e6, 1.0, 1.0, 1.0) == (FEWEST, ["exact", "smooth"])
    assert payable([entrant("exact", 1.0), entrant("smooth", 1e6)], 5, 10)[0] == 5


@pytest.mark.parametrize(("price", "raced"), [(0.05, 32), (PATIENCE / 5, 16), (99.0, FEWEST)])
def test_entrants_out_of_proportion_are_raced_on_fewer_images_from_the_first_lap(monkeypatch, price, raced):
    laps, notes = [], []

    def lap(subject, standing, entrant, some, name="race"):
        if name == "race":
            laps.append(len(some))
        return torch.zeros(len(some))

    monkeypatch.setattr(racing, "_lap", lap)
    subject = SimpleNamespace(
        progress=SimpleNamespace(stage=lambda name: None, note=notes.append),
        budget=SimpleNamespace(race_examples=32, race_steps=10),
        random=False,
    )
    entrants = [entrant("exact", price), entrant("smooth", 2 * price), entrant("identity", 3 * price)]
    result = run_race(subject, SimpleNamespace(rate=torch.zeros(40)), entrants)
    runners = 2 if raced == FEWEST else 3
    assert laps == [raced] * runners
    assert bool(notes) == (raced < 32)
    assert result.rates.shape == (runners, raced)


def test_of_equally_good_gradients_one_that_is_far_quicker_wins():
    rates = torch.tensor([broken(0), broken(3), broken(3)])

    def winner(*prices):
        entrants = [entrant(n, p) for n, p in zip(("exact", "smooth", "identity"), prices, strict=True)]
        return named(Race(entrants, rates).winners())

    assert winner(0.1, 1.0, 1.0) == ["smooth"]
    assert winner(0.1, 1.0, 0.6) == ["smooth"]  # what a clock says twice differs by more
    assert winner(0.1, 1.0, 0.4) == ["identity"]


@pytest.mark.parametrize("won", [0, 5, 32])
def test_a_quick_repair_that_is_no_better_does_not_take_the_exact_gradients_place(won):
    """The campaign follows the first winner: a learned stand-in is quick, and a repair that raises has no price."""
    for price in (0.001, 0.0):
        entrants = [entrant("exact", 0.1), entrant("learned", price)]
        assert named(Race(entrants, torch.tensor([broken(won)] * 2)).winners()) == ["exact"]


def test_a_repair_that_does_not_run_is_not_the_quickest():
    entrants = [entrant("exact", 0.1), entrant("smooth", 1.0), entrant("raises", 0.0)]
    assert named(Race(entrants, torch.tensor([broken(0), broken(3), broken(3)])).winners()) == ["smooth"]


def test_what_few_images_do_not_tell_is_asked_of_more():
    first, none = broken(2, 16), broken(0, 16)
    more = torch.tensor([broken(0, 45), broken(3, 45)])
    assert race(none, first).gap == 0
    assert replace(race(none, first), heat=more).gap == pytest.approx(5 / 61)
    assert replace(race(none, first), heat=more.flip(0)).gap == 0
    assert replace(race(none, first), heat=0 * more).gap == 0
    assert replace(race(none, broken(4, 16)), heat=0 * more).gap == pytest.approx(
        4 / 16
    )  # it is told already


@pytest.mark.parametrize(
    ("exact", "repaired", "random", "heats"),
    [(0, 2, False, ["exact", "repaired"]), (0, 2, True, []), (2, 2, False, []), (0, 4, False, [])],
)
def test_a_heat_is_run_where_a_lead_may_be_luck(monkeypatch, exact, repaired, random, heats):
    told = []

    def lap(subject, standing, entrant, some, name="race"):
        standing.spent.append(SimpleNamespace(seconds=0.1))
        if name == "heat":
            told.append(entrant.name)
            assert some.tolist() == list(range(16, 30))
        return (some < entrant.breaks).float()

    monkeypatch.setattr(racing, "_lap", lap)
    subject = SimpleNamespace(
        progress=SimpleNamespace(stage=lambda name: None),
        budget=SimpleNamespace(race_examples=16, race_steps=12),
        processes=SimpleNamespace(first=lambda ask: ask()),
        random=random,
    )
    standing = SimpleNamespace(rate=torch.zeros(30), spent=[])
    entrants = [
        SimpleNamespace(name=name, passes=1, seconds=0.0, breaks=breaks)
        for name, breaks in (("exact", exact), ("repaired", repaired))
    ]
    found = run_race(subject, standing, entrants)
    assert told == heats
    assert (found.heat is not None) == bool(heats)


def level(passes=(), **rates):
    """Names of the winners and of their rivals; `passes` of one estimate by name, else 1."""
    entrants = [SimpleNamespace(name=name, passes=dict(passes).get(name, 1), seconds=0.0) for name in rates]
    found = Race(entrants, torch.tensor(list(rates.values())))
    return [e.name for e in found.winners()], [e.name for e in found.rivals()]


def test_rivals_are_those_that_luck_does_not_tell_from_the_best():
    """On images that both break nothing tells them apart, and what is left may fall to the other."""
    easy = {"exact": [0.0] * 8, "identity": [0.9] * 8, "unrolled": [0.95] * 4 + [0.8] * 4}
    assert level(**easy) == (["identity"], ["unrolled"])
    assert level({"unrolled": 2}, **easy) == (["identity"], ["unrolled"])
    assert level({"unrolled": 3}, **easy) == (["identity"], [])  # it would cost three times as much
    assert level({"unrolled": 9, "identity": 9}, **easy) == (["identity"], ["unrolled"])
    assert level(**easy, worse=[0.8] * 8) == (["identity"], ["unrolled"])  # eight to none: no luck
    assert level(**easy, third=[0.8] * 4 + [0.91] * 4) == (["identity"], ["unrolled", "third"])
    more = {name: [0.8] * 4 + [0.91] * 4 for name in ("third", "fourth")}
    assert level(**easy, **more) == (["identity"], ["unrolled", "third"])  # three in all, with the winners


def test_a_winner_is_no_rival_and_without_a_contest_there_is_none():
    first, second = [1.0] * 4 + [0.0] * 4, [0.0] * 4 + [1.0] * 4
    assert level(exact=[0.0] * 8, first=first, second=second) == (["first", "second"], [])
    assert level(exact=[0.0] * 8) == (["exact"], [])
    assert level(exact=[0.0] * 8, repaired=[0.0] * 8) == (["exact"], ["repaired"])
