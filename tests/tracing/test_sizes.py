"""Results of unusual sizes on the way to the logits: nothing at all, one number for the whole batch."""

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.tracing.analyse import analyse


class Odd(nn.Module):
    def __init__(self, change):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        self.change = change

    def forward(self, x):
        return self.change(self.layers, x)


CHANGES = {
    "a slice of nothing": lambda f, x: torch.cat([f(x)[:, :3], f(x)[:, 3:]], 1),
    "a number for the batch": lambda f, x: f(x / x.amax()),
    "one image after another": lambda f, x: torch.cat([f(image) for image in x.split(1)]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_nobody_is_accused(name):
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    network = Odd(CHANGES[name]).eval()
    y = network(x).argmax(1)
    streams = Streams.seeded(0, torch.arange(6), "sizes")
    found = analyse(Classifier(network), x, y, Linf(epsilon=0.1), seed=0, generator=streams)
    assert not found.suspects
