"""What a race credits a repair with."""

import pytest
import torch
from scipy.stats import binom

from unmask.audit.race import LUCK, Race


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
