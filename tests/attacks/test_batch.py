"""The examples that are left, and the best point of each."""

import pytest
import torch

from unmask.attacks.batch import Batch, Incumbent, overwrite, restarts
from unmask.objectives import Targeted, cross_entropy
from unmask.randomness import Streams

X = torch.arange(12.0).reshape(4, 3)
Y = torch.tensor([3, 2, 1, 0])


def whole(objective=cross_entropy):
    return Batch.whole(X, Y, Streams.seeded(0, torch.arange(4)), objective)


def test_who_stays_keeps_rows_random_numbers_and_targets():
    batch = whole(Targeted(torch.tensor([4, 5, 6, 7])))
    stays = torch.tensor([False, True, False, True])
    state = torch.arange(8.0).reshape(4, 2)
    left, rows, aim, one = batch.keep(stays, state, Targeted(Y + 1), torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert left.index.tolist() == [1, 3]
    assert torch.equal(left.x, X[[1, 3]])
    assert left.y.tolist() == [2, 0]
    assert left.objective.targets.tolist() == [5, 7]
    assert rows.tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert aim.targets.tolist() == [3, 1]
    assert one.tolist() == torch.tensor([0.2, 0.4]).tolist()
    assert torch.equal(left.streams.uniform(5), whole().streams.uniform(5)[[1, 3]])
    again, rows = left.keep(torch.tensor([False, True]), rows)  # places are still those of the whole
    assert again.index.tolist() == [3]
    assert rows.tolist() == [[6.0, 7.0]]
    assert len(left.keep(torch.zeros(2, dtype=torch.bool))[0]) == 0


def test_a_point_that_fools_stays_whatever_is_offered_later():
    best = Incumbent(X)
    batch, _ = whole().keep(torch.tensor([False, True, True, True]), X)
    best.offer(batch.index, X[1:] + 1, torch.tensor([5.0, 6.0, 7.0]))
    best.fooled(batch, torch.tensor([True, False, True]), X[1:] - 1)
    best.offer(batch.index, X[1:] + 2, torch.tensor([1e30, 1e30, 1e30]))
    assert best.unfooled().tolist() == [0, 2]
    assert torch.equal(best.x_adv, torch.stack([X[0], X[1] - 1, X[2] + 2, X[3] - 1]))


def test_each_restart_has_random_numbers_of_its_own_and_ends_with_the_examples():
    best, drawn, places = Incumbent(X), [], []
    for number, batch in restarts(5, whole(), best):
        drawn.append(batch.streams.uniform(4))
        places.append((number, batch.index.tolist()))
        won = torch.zeros(len(batch), dtype=torch.bool)
        won[: 2 if number else 1] = True
        best.fooled(batch, won, batch.x)
    assert places == [(0, [0, 1, 2, 3]), (1, [1, 2, 3]), (2, [3])]
    assert not torch.equal(drawn[0][1:], drawn[1])
    named = [batch.streams.uniform(4) for _, batch in restarts(2, whole(), Incumbent(X), "target")]
    assert torch.equal(named[0], drawn[0])
    assert not torch.equal(named[1][1:], drawn[1])


@pytest.mark.parametrize("chosen", [[False] * 4, [True] * 4, [False, True, True, False]])
def test_the_chosen_rows_are_written_in_place_and_no_others(chosen):
    kept, new, values = X.clone(), -X, torch.arange(4.0)
    before, chosen = kept, torch.tensor(chosen)
    overwrite(chosen, (kept, new), (values, values + 10))
    assert kept is before
    assert torch.equal(kept, torch.where(chosen[:, None], -X, X))
    assert torch.equal(values, torch.where(chosen, torch.arange(4.0) + 10, torch.arange(4.0)))
    assert torch.equal(new, -X)


def test_a_plain_generator_gives_each_example_numbers_of_its_own():
    batch = Batch.whole(X, Y, torch.Generator().manual_seed(0), cross_entropy)
    assert (len(batch), batch.index.tolist()) == (4, [0, 1, 2, 3])
    assert batch.x is X
    assert batch.y is Y
    drawn = batch.streams.uniform(3)
    assert len(drawn.unique(dim=0)) == 4
    again = Batch.whole(X, Y, torch.Generator().manual_seed(0), cross_entropy)
    assert torch.equal(again.streams.uniform(3), drawn)
