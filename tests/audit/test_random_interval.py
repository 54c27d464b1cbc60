"""The interval of a random network's accuracy holds for the choice of images and for the draws together."""

import numpy as np
import pytest

from unmask.statistics import clopper_pearson


@pytest.mark.parametrize("draws", [1, 4, 16])
@pytest.mark.parametrize(("a", "b"), [(0.2, 0.2), (8.0, 2.0), (0.05, 4.0)])
def test_it_covers_the_true_accuracy(a, b, draws):
    """Images with failure rates from a Beta distribution, each judged on a few draws; 2,000 audits of 40 images."""
    rng = np.random.default_rng(0)
    truth = b / (a + b)  # accuracy of a random image on a random draw
    rates = rng.beta(a, b, (2000, 40))
    right = (1 - rng.binomial(draws, rates) / draws).sum(1)
    found = {value: clopper_pearson(value, 40) for value in set(right.tolist())}
    covered = np.mean([found[value][0] <= truth <= found[value][1] for value in right.tolist()])
    # Exactly 95 % at least for one draw, which is binomial; means of several vary less. Standard error 0.5 %.
    assert covered >= 0.94
    # Treating every draw as an image of its own would promise too much where images differ in kind.
    if draws == 16 and a == 0.2:
        pooled = {value: clopper_pearson(value * draws, 40 * draws) for value in set(right.tolist())}
        claimed = np.mean([pooled[value][0] <= truth <= pooled[value][1] for value in right.tolist()])
        assert claimed < 0.7
