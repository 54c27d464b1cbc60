"""How much memory an analysis takes beside one forward and backward pass of the same batch."""

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import ProfilerActivity, profile

from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.tracing.analyse import analyse


class Block(nn.Module):
    def __init__(self, channels, step):
        super().__init__()
        self.one, self.two = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.step = step

    def forward(self, x):
        return torch.relu(x + self.step(self.two(torch.relu(self.one(x)))))


def network(depth, step=lambda h: h):
    """Residual blocks on the whole image: every one takes as much as the first."""
    torch.manual_seed(0)
    blocks = [Block(8, step) for _ in range(depth)]
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *blocks, *head).eval().requires_grad_(False)


def peak(run):
    """The most bytes that torch held for `run` at once; what was there before does not count."""
    gc.collect()  # or what another test left is freed meanwhile, and counts as memory given back
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def measured(net, size=48):
    """Peaks of a forward and backward of eight images, and of their analysis; and the analysis."""
    x = torch.rand(8, 3, size, size, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    found = []

    def pass_():
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(F.cross_entropy(net(leaf), y), leaf)

    def trace():
        streams = Streams.seeded(0, torch.arange(8), "memory")
        found.append(analyse(Classifier(net), x, y, Linf(epsilon=0.03), seed=0, generator=streams))

    return max(peak(pass_) for _ in range(3)), peak(trace), found[0]


@pytest.mark.parametrize("depth", [14, pytest.param(42, marks=pytest.mark.slow)])
def test_an_analysis_takes_about_two_passes_whatever_the_depth(depth):
    one, whole, analysis = measured(network(depth))
    assert not analysis.suspects
    assert whole <= 2 * one


def test_what_masks_is_found_in_hardly_more():
    """Here every tensor is compared with a moved run's, and rounding leaves autograd nothing to keep of its own."""
    one, whole, analysis = measured(network(14, lambda h: torch.round(h * 20) / 20))
    assert {s.group[0] for s in analysis.suspects} == {"round"}
    assert whole <= 2.5 * one
