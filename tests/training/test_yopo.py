"""YOPO beside whole backward passes: behind an affine first layer its cheap steps are exact."""

import pytest
import torch
from torch import nn

from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import YOPO
from unmask.training.yopo import first_layer, up_to
from unmask.zoo import CNN, Normalize, PreActResNet18

from .conftest import PLAIN, descent_by_hand, flat, seed, slope, small_network

EPSILON = 0.1


def test_first_layer_is_the_one_that_runs_first():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.first = nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.first(x.flatten(1)))

    network = Backwards()
    assert first_layer(network, torch.rand(1, 1, 2, 2)) is network.first
    resnet = PreActResNet18(normalize=Normalize([0.5] * 3, [0.2] * 3)).eval()
    assert first_layer(resnet, torch.rand(1, 3, 8, 8)) is resnet.conv1
    assert not any(m._forward_pre_hooks for m in resnet.modules())
    with pytest.raises(UnusableInput, match="no layer with parameters"):
        first_layer(nn.Flatten(), torch.rand(1, 1, 2, 2))


def test_front_ends_behind_the_layer():
    network = CNN(8)
    x, seen = torch.rand(2, 1, 8, 8), []
    network.layers[2].register_forward_pre_hook(lambda *_: seen.append(1))
    out = up_to(network, network.layers[0], network)(x)
    assert torch.equal(out, network.layers[0](x))
    assert not seen
    assert not network.layers[0]._forward_hooks


class Curved(nn.Module):
    """The first layer sees a wave of the image, so that the inner steps differ even in sign."""

    def __init__(self):
        super().__init__()
        self.inner = small_network()

    def forward(self, x):
        return self.inner(torch.sin(9 * x))


def test_inner_steps_behind_a_curve_follow_the_front(few):
    """By hand: the slope behind the first layer held fixed, the front differentiated anew at every step."""
    options = PLAIN | {"epochs": 1, "batch_size": 96, "momentum": 0.0, "weight_decay": 0.0, "average": 0.0}
    recipe = YOPO(**options, warmup=1.0, full=2, inner=3, rel_step_size=0.7)
    threat = Linf(epsilon=EPSILON)
    found, truth = Curved(), Curved()
    recipe.fit(found, few, threat, generator=seed())
    generator = seed()
    part = torch.randperm(96, generator=generator)
    x, y = few.x[part], few.y[part]
    x_adv = threat.random_start(x, generator=Streams.of(generator, 96))
    first, rest = truth.inner.layers[1], truth.inner.layers[2:]
    total = [torch.zeros_like(p) for p in truth.parameters()]
    for _ in range(2):
        weights, _ = slope(truth, x_adv, y)
        total = [t + w / 2 for t, w in zip(total, weights, strict=True)]
        hidden = first(torch.sin(9 * x_adv).flatten(1)).detach().requires_grad_()
        (p,) = torch.autograd.grad(nn.functional.cross_entropy(rest(hidden), y), hidden)
        for _ in range(3):
            moved = x_adv.detach().requires_grad_()
            (g,) = torch.autograd.grad((p * first(torch.sin(9 * moved).flatten(1))).sum(), moved)
            x_adv = x_adv + 0.7 * EPSILON * g.sign()
            x_adv = (x + (x_adv - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)
    descent_by_hand(truth, total, recipe.rate(0, 1))
    assert torch.allclose(flat(found), flat(truth), atol=1e-5)


def test_beside_whole_backward_passes(few):
    """m full passes, and between them n steps along the sign of the whole network's own slope."""
    options = PLAIN | {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "average": 0.0}
    recipe = YOPO(**options, full=3, inner=2, rel_step_size=0.3)
    threat = Linf(epsilon=EPSILON)
    found = small_network()
    recipe.fit(found, few, threat, generator=seed())

    truth, generator = small_network(), seed()
    for step, part in enumerate(torch.randperm(96, generator=generator).split(32)):
        x, y = few.x[part], few.y[part]
        x_adv = threat.random_start(x, generator=Streams.of(generator, 32))
        total = [torch.zeros_like(p) for p in truth.parameters()]
        for _ in range(3):
            weights, image = slope(truth, x_adv, y)
            total = [t + w / 3 for t, w in zip(total, weights, strict=True)]
            for _ in range(2):
                x_adv = x_adv + 0.3 * EPSILON * image.sign()
                x_adv = (x + (x_adv - x).clamp(-EPSILON, EPSILON)).clamp(0, 1)
        descent_by_hand(truth, total, recipe.rate(step, 3))
    assert torch.allclose(flat(found), flat(truth), atol=1e-5)
