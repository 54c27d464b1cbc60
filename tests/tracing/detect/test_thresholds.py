"""Both sides of every threshold that decides whether a place is a suspect: just below it is none, just above it is."""

import pytest
import torch
from tests.tracing.networks import Wrapped, linear
from torch import nn

from unmask.classifier import Classifier
from unmask.objectives import margin_loss
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.detect.flow import follow, listen
from unmask.tracing.detect.misleading import misleading
from unmask.tracing.detect.runs import Runs, slopes
from unmask.tracing.detect.slopes import wraps
from unmask.tracing.record.compare import SCALES
from unmask.tracing.record.passes import record

N = 20


def symptoms(network, x, epsilon=0.01):
    with torch.no_grad():
        y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    found = analyse(Classifier(network), x, y, Linf(epsilon=epsilon), seed=0, generator=generator)
    return {s.symptom.name for s in found.suspects}


def images(batch=N, seed=0):
    return 0.4 + 0.2 * torch.rand(batch, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("share", "named"), [(0.23, False), (0.27, True)])
def test_a_quarter_of_the_change_is_notable(share, named):
    found = symptoms(Wrapped(lambda x: (1 - share) * x + share * x.detach()), images())
    assert ("cut" in found) == named


@pytest.mark.parametrize(("dark", "named"), [(1, False), (3, True)])
def test_a_gradient_that_dies_on_more_than_a_tenth_of_the_images_has_vanished(dark, named):
    x = images()
    x[:dark] = 0.1
    assert ("vanished" in symptoms(Wrapped(lambda x: torch.relu(x - 0.3)), x)) == named


@pytest.mark.parametrize(("bright", "named"), [(1, False), (3, True)])
def test_a_softmax_that_saturates_on_more_than_a_tenth_of_the_images_underflows(bright, named):
    x = torch.full((N, 1, 4, 4), 0.01)
    x[:bright] = 0.9
    assert ("underflow" in symptoms(Wrapped(lambda x: 300 * x), x, epsilon=1e-4)) == named


@pytest.mark.parametrize(("size", "dead"), [(1e-31, 1.0), (1e-28, 0.0)])
def test_a_gradient_below_1e_30_is_dead(size, dead):
    network = Wrapped(lambda x: size * x)
    trace = record(Classifier(network), images(), seed=0)
    y = torch.zeros(N, dtype=torch.int64)
    assert follow(trace, margin_loss, y).dead_at_input == dead


def run(network, x):
    return record(Classifier(network), x, seed=0)


@pytest.mark.parametrize(("jumping", "named"), [(1, False), (3, True)])
def test_a_remainder_is_a_staircase_where_more_than_a_tenth_of_it_jumps(jumping, named):
    network = Wrapped(lambda x: x % 0.5, inputs=20)
    x = torch.full((2, 1, 1, 20), 0.25)
    x[..., :jumping] = 0.49
    base, moved = run(network, x), run(network, x + 0.02)
    (before,), (after,) = (
        [r for r in t.records if "remainder" in r.name or "mod" in r.name] for t in (base, moved)
    )
    assert wraps(before, after) == named


def misled(network, x, move):
    """Symptoms of a step by `move`, a quarter of it, and a sixteenth."""
    base, moved = run(network, x), {scale: run(network, x + scale * move) for scale in SCALES}
    y = torch.zeros(len(x), dtype=torch.int64)
    for trace in (base, *moved.values()):
        listen(trace, margin_loss, y, trace.records)
    seen = {scale: slopes(base, trace, y) for scale, trace in moved.items()}
    return {s.symptom.name for s in misleading(Runs(base, moved, y, seen), [])}


@pytest.mark.parametrize(("flat", "named"), [(7, False), (9, True)])
def test_more_than_half_of_the_change_denied_is_saturated(flat, named):
    """Sigmoids that the move wakes, beside others in their steep part."""
    x = torch.full((4, 1, 4, 4), 0.5)
    x.view(4, 16)[:, :flat] = 0.3
    assert ("saturated" in misled(Wrapped(lambda x: torch.sigmoid(200 * (x - 0.5))), x, 0.8)) == named


class Turned(torch.autograd.Function):
    """Doubles; its backward has the wrong sign on a part of the elements."""

    @staticmethod
    def forward(ctx, x, signs):
        ctx.save_for_backward(signs)
        return 2 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0], None


@pytest.mark.parametrize(("right", "named"), [(78, False), (60, True)])
def test_a_slope_that_agrees_by_less_than_0_35_is_wrong(right, named):
    """The cosine between the predicted and the true change is twice the right share, minus one: 0.56, 0.2."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.read_out = linear(100)
            self.signs = torch.where(torch.arange(100) < right, 1.0, -1.0)

        def forward(self, x):
            return self.read_out(Turned.apply(x.flatten(1), self.signs))

    x = 0.4 + 0.2 * torch.rand(30, 1, 10, 10, generator=torch.Generator().manual_seed(0))
    assert ("wrong" in misled(Network(), x, 0.1)) == named
