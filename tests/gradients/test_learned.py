"""Learned surrogates beside transformations whose slope is known."""

import pytest
import torch
import torch.nn.functional as F

from unmask.data import load
from unmask.errors import Unsupported
from unmask.gradients import StraightThrough
from unmask.gradients.learned import LearnedSurrogate, agreement, choose, learn, nudges
from unmask.randomness import Streams

KERNEL = torch.tensor([[0.0, 1, 0], [1, 1, 2], [0, -1, 0]])[None, None] / 4


def crooked(x):
    """Linear, and far from the identity."""
    return F.conv2d(x, KERNEL, padding=1)


def quantised(x):
    return (crooked(x) * 50).round() / 50


@pytest.fixture(scope="module")
def x():
    return load("digits", split="train", examples=240).x


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_agreement_in_closed_form(x):
    exact = agreement(crooked, crooked, x, 0.1, generator=generator())
    assert exact.cosine == pytest.approx(1, abs=1e-5)
    assert exact.error == pytest.approx(0, abs=1e-5)
    opposite = agreement(crooked, lambda t: -crooked(t), x, 0.1, generator=generator())
    assert opposite.cosine == pytest.approx(-1, abs=1e-5)
    assert opposite.error == pytest.approx(2, abs=1e-5)
    dead = agreement(lambda t: t * 0 + 1, lambda t: t, x, 0.1, generator=generator())
    assert dead.cosine == 0


def test_learns_slopes_that_rounding_hides(x):
    network = learn(quantised, x[:180], 0.1, generator=generator(), steps=250)
    told = agreement(quantised, crooked, x[180:], 0.1, generator=generator(1))
    learnt = agreement(quantised, network, x[180:], 0.1, generator=generator(1))
    identity = agreement(quantised, lambda t: t, x[180:], 0.1, generator=generator(1))
    assert learnt.cosine > 0.95 * told.cosine
    assert identity.cosine < 0.75 * told.cosine
    assert learnt.error < 0.1
    assert not any(p.requires_grad for p in network.parameters())


def test_the_better_one_is_chosen(x):
    assert choose(quantised, x, 0.1, generator=generator(), steps=200).name == "learned"
    told = choose(quantised, x, 0.1, given={"told": crooked}, generator=generator(), steps=20)
    assert told.name == "told"
    assert set(told.measured) == {"identity", "told", "learned"}
    small = choose(lambda t: (t * 50).round() / 50, x, 0.1, generator=generator(), steps=20)
    assert small.name == "identity" or small.measured["learned"].cosine > small.measured["identity"].cosine


def test_more_channels(x):
    def code(t):
        return (t > torch.tensor([0.2, 0.5, 0.8])[:, None, None]).float()

    chosen = choose(code, x, 0.3, generator=generator(), steps=250)
    assert chosen.name == "learned"
    assert chosen.measured["learned"].cosine > 0.5
    assert "identity" not in chosen.measured
    through = StraightThrough(code, chosen.surrogate)
    assert torch.equal(through(x), code(x))


def test_other_sizes_need_somebody_who_knows(x):
    with pytest.raises(Unsupported, match=r"\[1, 4, 4\] of \[1, 8, 8\]"):
        choose(lambda t: t[..., ::2, ::2].round(), x[:8], 0.1, generator=generator())
    with pytest.raises(Unsupported, match="same shape"):
        StraightThrough(lambda t: t[..., ::2, ::2])(x[:2])
    with pytest.raises(Unsupported, match=r"makes \[1, 4, 4\] of \[1, 8, 8\]; .* height and width"):
        learn(lambda t: t[..., ::2, ::2], x[:8], 0.1, generator=generator())


def test_three_convolutions_that_begin_as_the_identity_where_channels_allow_it(x):
    network = LearnedSurrogate(1, 1)
    shapes = [layer.weight.shape for layer in network.layers if isinstance(layer, torch.nn.Conv2d)]
    assert shapes == [(16, 1, 5, 5), (16, 16, 5, 5), (1, 16, 5, 5)]
    assert torch.equal(network(x), x)
    wider = LearnedSurrogate(1, 3, width=4, size=3)
    assert wider(x).shape == (len(x), 3, 8, 8)
    assert bool((wider(x) != x).any())


def test_random_transformations_are_compared_on_one_draw(x):
    state = torch.get_rng_state()
    noisy = agreement(lambda t: t + torch.randn_like(t), lambda t: t, x, 0.1, generator=generator())
    assert noisy.cosine == pytest.approx(1, abs=1e-4)
    learn(lambda t: t + torch.randn_like(t), x[:8], 0.1, generator=generator(), steps=2)
    assert torch.equal(state, torch.get_rng_state())


def test_nudges_are_corners_of_the_ball(x):
    step = nudges(x, 0.1, generator=Streams.of(generator(), len(x)))
    assert step.shape == x.shape
    assert torch.equal(step.abs(), torch.full_like(x, 0.1))
    blocks = step.unflatten(2, (2, 4)).unflatten(4, (2, 4))
    coarse = (blocks.amax((3, 5)) == blocks.amin((3, 5))).flatten(1).all(1).float().mean()
    assert 0.2 < float(coarse) < 0.5
