"""Operations whose gradient goes back to one of their inputs alone, although another one decides, too."""

import pytest
import torch
import torch.nn.functional as F
from tests.tracing.idiom_table import along, attacked, by_hand
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


def looked_up(x, mode):
    """The image read where the image itself says."""
    places = (2 * x.flip(1).reshape(-1, 4, 4, 1) - 1).expand(-1, -1, -1, 2)
    return F.grid_sample(x.reshape(-1, 1, 4, 4), places, mode, "border", align_corners=True).flatten(1)


def by_name(net, x):
    return looked_up(x, "nearest")


def by_affine_grid(net, x):
    turn = torch.zeros(len(x), 2, 3)
    turn[:, 0, 0] = turn[:, 1, 1] = 1
    turn[:, :, 2] = 4 * x[:, :2] - 2
    grid = F.affine_grid(turn, [len(x), 1, 4, 4], align_corners=False)
    return F.grid_sample(x.reshape(-1, 1, 4, 4), grid, mode="nearest", align_corners=False).flatten(1)


class OneSided(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gain):
        ctx.save_for_backward(gain)
        return x * gain

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], torch.zeros_like(grad)


def a_gain_without_gradient(net, x):
    return OneSided.apply(x, torch.exp(-4 * net.inner(x).square()))


@pytest.mark.parametrize("step", [by_name, by_affine_grid, a_gain_without_gradient])
def test_it_is_suspected_and_repaired(step):
    network = Network(step).eval()
    analysis = suspects(network)
    assert {"zero"} <= {s.symptom.name for s in analysis.suspects}
    x = images(16)
    y = network(x).argmax(1)
    repairs = [Rewritten(network, r.rewrite) for r in propose(analysis)]
    left = min(attacked(network, x, y, along(f, y)) for f in repairs)
    assert left <= min(attacked(network, x, y, by_hand(network, y, span)) for span in (0.25, 2.0))


def test_one_that_goes_back_to_both_is_none():
    analysis = suspects(Network(lambda net, x: looked_up(x, "bilinear")).eval())
    assert "zero" not in {s.symptom.name for s in analysis.suspects}


class OfNoWeight(torch.autograd.Function):
    """As the implicit layers that people write: nothing goes back to the weight, and its gradient to x is wrong."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x)
        return torch.tanh(3 * x @ weight)

    @staticmethod
    def backward(ctx, grad):
        return -grad, None


class Implicit(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, torch.nn.Parameter(torch.eye(16))

    def forward(self, x):
        return self.function(x, 0.9 * self.weight / self.weight.norm(2).clamp_min(1.0))


def test_a_weight_that_gets_no_gradient_is_no_loss():
    """What an image does not move has nothing to say to an attack, be it a parameter or what is made of parameters."""
    network = Network(lambda net, x: net.implicit(x)).eval()
    network.implicit = Implicit(OfNoWeight.apply)
    found = {s.symptom.name for s in suspects(network).suspects}
    assert "wrong" in found
    assert "zero" not in found
