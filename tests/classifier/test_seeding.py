"""What third-party code draws under a seed is what torch, NumPy and Python give for it; afterwards all is as before."""

import random

import numpy as np
import torch

from unmask.classifier.seeding import seeded


def drawn():
    return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()


def test_each_generator_has_the_seed_and_is_put_back():
    state = torch.get_rng_state(), random.getstate()
    with seeded(2**40 + 7, torch.device("cpu")):
        found = drawn()
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    with torch.random.fork_rng([]):
        torch.manual_seed(2**40 + 7)
        np.random.seed((2**40 + 7) % 2**32)
        random.seed(2**40 + 7)
        assert drawn() == found
