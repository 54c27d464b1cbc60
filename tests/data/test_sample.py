"""The sample: every class by its share, every example equally likely, the same for the same seed."""

import numpy as np
import pytest
import torch

from unmask.data import load
from unmask.data.sample import places, stratified
from unmask.errors import UnusableInput

SORTED = np.repeat([0, 1, 2], [50, 30, 20])


@pytest.mark.parametrize(("count", "shares"), [(10, [5, 3, 2]), (20, [10, 6, 4]), (100, [50, 30, 20])])
def test_classes_have_their_shares(count, shares):
    chosen = stratified(SORTED, count, seed=3)
    assert len(np.unique(chosen)) == count
    assert np.all(np.diff(chosen) > 0)
    assert np.bincount(SORTED[chosen]).tolist() == shares


def test_every_example_is_equally_likely():
    """Within each class; 400 samples of 10 of 100, each example expected 40 times."""
    seen = np.zeros(100)
    for seed in range(400):
        seen[stratified(SORTED, 10, seed)] += 1
    assert seen.min() > 15
    assert seen.max() < 70


def test_ties_are_broken_by_lot():
    labels = np.arange(10)
    chosen = {tuple(stratified(labels, 3, seed)) for seed in range(20)}
    assert len(chosen) > 10


def test_without_a_seed_the_first_ones():
    assert places(SORTED, 4, None, "it").tolist() == [0, 1, 2, 3]
    assert places(SORTED, None, 0, "it").tolist() == list(range(100))
    with pytest.raises(UnusableInput, match="holds 100"):
        places(SORTED, 101, 0, "it")


def test_a_loaded_sample_knows_its_places():
    whole, some = load("digits"), load("digits", examples=40, seed=1)
    assert torch.equal(some.x, whole.x[some.index])
    assert torch.equal(some.y, whole.y[some.index])
    assert len(some.y.unique()) == 10
    assert some.index.tolist() != load("digits", examples=40, seed=2).index.tolist()
