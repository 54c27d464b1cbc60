"""Repaired gradients: what a pass of theirs leaves behind."""

import gc

import numpy as np
import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.gradients.repaired import Repaired
from unmask.objectives import margin_loss
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.repair.propose import propose


def rounded(x):
    return torch.round(8 * x) / 8


def by_numpy(x):
    """Out of torch and back, moved on the way, and rounded there."""
    moved = x.detach().numpy().transpose(0, 2, 3, 1)
    images = [np.round(8 * image) / 8 for image in moved]
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


def cut(x):
    """A gradient of its own, which is unrolled."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad((leaf - 0.5).square().sum(), leaf)
    return (x - 0.1 * slope).detach()


class Net(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step, self.last = step, nn.Linear(16, 3)

    def forward(self, x):
        return self.last(self.step(x).flatten(1))


@pytest.mark.parametrize("step", [rounded, by_numpy, cut])
def test_a_pass_holds_no_memory_once_it_is_over(step):
    """A circle of references would keep its graph until garbage is collected: 15 GB of a ResNet-20 behind JPEG."""
    torch.manual_seed(0)
    classifier, x, y = Classifier(Net(step).eval()), torch.rand(4, 1, 4, 4), torch.tensor([0, 1, 2, 0])
    seen = analyse(classifier, x, y, Linf(0.1), seed=0, generator=torch.Generator().manual_seed(0))
    repairs = [Repaired(r.rewrite) for r in propose(seen, None)]
    assert repairs

    def tensors():
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    for repaired in repairs:
        repaired.estimate(classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(0))
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for repaired in repairs:
            found = repaired.estimate(
                classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(0)
            )
            assert found.grad.any()
            del found
            assert tensors() == before
    finally:
        gc.enable()
