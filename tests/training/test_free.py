"""Free training beside algorithm 1 of the paper, written out."""

import torch

from unmask.threat import Linf
from unmask.training import FreeTraining

from .conftest import PLAIN, descent_by_hand, flat, seed, slope, small_network

EPSILON = 0.1


def test_beside_the_papers_algorithm(few):
    options = PLAIN | {"epochs": 6, "momentum": 0.0, "weight_decay": 0.0, "average": 0.0}
    recipe = FreeTraining(**options, replays=3)
    found = small_network()
    history = recipe.fit(found, few, Linf(epsilon=EPSILON), generator=seed())
    assert len(history.epochs) == 2  # 6 / 3

    truth, generator, step = small_network(), seed(), 0
    delta = torch.zeros(32, 1, 8, 8)
    for _ in range(2):
        for part in torch.randperm(96, generator=generator).split(32):
            x, y = few.x[part], few.y[part]
            for _ in range(3):
                weights, image = slope(truth, (x + delta).clamp(0, 1), y)
                descent_by_hand(truth, weights, recipe.rate(step, 18))
                delta = (delta + EPSILON * image.sign()).clamp(-EPSILON, EPSILON)
                step += 1
    assert torch.allclose(flat(found), flat(truth), atol=1e-6)
