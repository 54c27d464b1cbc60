import torch
from scipy.stats import binomtest

from unmask.diagnostics.base import breaks_more


def test_only_examples_that_one_of_the_two_breaks_decide():
    both = torch.tensor([True] * 20 + [False] * 20)
    more = both.clone()
    more[20:24] = True
    assert not breaks_more(more, both)  # 4 of 4: 0.0625
    more[24] = True
    assert breaks_more(more, both)  # 5 of 5: 0.03125
    assert not breaks_more(both, more)


def test_agrees_with_the_binomial_distribution():
    first = torch.tensor([True] * 9 + [False] * 2)
    for level in (0.01, 0.05):
        assert breaks_more(first, ~first, level=level) == (
            binomtest(9, 11, alternative="greater").pvalue < level
        )
