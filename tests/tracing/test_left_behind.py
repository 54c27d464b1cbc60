"""Networks that leave a mode of torch as it was not: traced they change nobody else's, and their gradient returns."""

import os
import signal

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.gradients.repaired import Repaired
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.state.process import Settings
from unmask.state.settings import modes
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.repair.propose import propose
from unmask.tracing.ways import ways

X = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(0))
Y = torch.zeros(6, dtype=torch.long)
STREAMS = Streams.seeded(0, torch.arange(6))
WEIGHT = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self, leaves):
        super().__init__()
        self.leaves = leaves

    def forward(self, x):
        self.leaves()
        return x.flatten(1) @ WEIGHT.to(x.dtype)


LEFT = {
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "gradient mode": lambda: torch.set_grad_enabled(False),
    "gradient mode, by a block": lambda: torch.no_grad().__enter__(),
    "gradient mode, underneath": lambda: torch._C._set_grad_enabled(False),
    "working directory": lambda: os.chdir(os.sep),
    "handlers": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    "precision": lambda: torch.set_float32_matmul_precision("high"),
}


def analysed(leaves):
    return analyse(Classifier(Net(leaves), deterministic=True), X, Y, Linf(0.1), seed=0, generator=STREAMS)


@pytest.mark.parametrize("leaves", LEFT.values(), ids=LEFT)
def test_what_a_traced_network_leaves_is_put_back(leaves):
    before = Settings(modes())
    ways(Classifier(Net(leaves)), X, 3, seed=0)
    assert before.put_back() == []
    analysed(leaves)
    assert before.put_back() == []


@pytest.mark.parametrize("name", [name for name in LEFT if name.startswith("gradient")])
def test_a_gradient_that_is_switched_off_for_good_is_repaired(name):
    network = Net(LEFT[name])
    repairs = {r.name: Repaired(r.rewrite) for r in propose(analysed(LEFT[name]))}
    classifier = Classifier(network, deterministic=True)
    found = repairs["smooth"].estimate(classifier, margin_loss, X, Y, generator=STREAMS).grad
    free = Classifier(Net(lambda: None), deterministic=True)
    truth = Repaired(repairs["smooth"].rewrite).estimate(free, margin_loss, X, Y, generator=STREAMS).grad
    assert truth.abs().max() > 0
    torch.testing.assert_close(found, truth)
