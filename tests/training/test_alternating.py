"""Labelled and pseudo-labelled minibatches in turn."""

from contextlib import suppress

import pytest
import torch

from unmask.errors import UnusableInput
from unmask.threat import Linf
from unmask.training import Alternating, FreeTraining, SelfTraining, Standard

from .conftest import PLAIN, descent_by_hand, flat, seed, slope, small_network

BARE = PLAIN | {"epochs": 1, "momentum": 0.0, "weight_decay": 0.0, "average": 0.0, "warmup": 0.0}


def alternating(few, rate=0.5, **fields):
    return Alternating.of(Standard(**BARE | fields), few.x[32:], few.y[32:], rate)


def test_two_steps_are_one_of_each_kind_at_their_own_rates(few):
    """By hand: a step on the labelled minibatch, then one on unlabelled images at half the rate."""
    recipe = alternating(few)
    network, by_hand = small_network(), small_network()
    noted = []
    learn = Standard.learn

    def note(self, run, x, y):
        noted.append((x.clone(), y.clone(), run.rate(run.done)))
        return learn(self, run, x, y)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Standard, "learn", note)
        recipe.fit(network, few[:32], None if not recipe.hardens else Linf(0.1), generator=seed())
    assert len(noted) == 2
    (x, y, rate), (pseudo, named, slower) = noted
    assert sorted(x.flatten(1).sum(1).tolist()) == sorted(few.x[:32].flatten(1).sum(1).tolist())
    known = {
        tuple(image.flatten().tolist()): int(label)
        for image, label in zip(few.x[32:], few.y[32:], strict=True)
    }
    assert [known[tuple(image.flatten().tolist())] for image in pseudo] == named.tolist()
    for images, labels, at in ((x, y, rate), (pseudo, named, slower)):
        gradients, _ = slope(by_hand, images, labels)
        descent_by_hand(by_hand, gradients, at)
    torch.testing.assert_close(flat(network), flat(by_hand))
    plain = Standard(**BARE)
    assert (rate, slower) == (plain.rate(0, 2), 0.5 * plain.rate(1, 2))


def test_every_unlabelled_image_is_seen_before_one_comes_again(few):
    recipe = alternating(few)

    class Asked:
        generator = seed(3)

    first = torch.cat([recipe._chosen(Asked, n) for n in (0, 1)])  # pyright: ignore
    then = torch.cat([recipe._chosen(Asked, n) for n in (2, 3)])  # pyright: ignore
    assert first.sort().values.tolist() == then.sort().values.tolist() == list(range(64))
    assert first.tolist() != then.tolist()


def test_it_costs_what_mixing_costs(few):
    """As many minibatches in all: those of labelled images repeat what there is."""
    mixing = SelfTraining(unlabelled=few.x[32:], student=Standard(**BARE))
    known = mixing.labelled_alone(few[:32])
    assert (len(known), len(mixing.mixed(few[:32], few.y[32:]))) == (64, 128)
    assert torch.equal(known.y, torch.cat([few.y[:32], few.y[:32]]))


def test_interrupted_training_ends_where_whole_training_does(few, tmp_path):
    student = Standard(**PLAIN | {"pad": 1})
    recipe = SelfTraining(unlabelled=few.x[32:], teacher=Standard(**PLAIN), student=student, pseudo_rate=0.3)
    whole, resumed = small_network(), small_network()
    history = recipe.fit(whole, few[:32], Linf(0.1), generator=seed())
    assert len(history.epochs) == 2

    def stop(history):
        raise KeyError

    file = tmp_path / "checkpoint.safetensors"
    with suppress(KeyError):
        recipe.fit(small_network(), few[:32], Linf(0.1), generator=seed(), checkpoint=file, progress=stop)
    recipe.fit(resumed, few[:32], Linf(0.1), generator=seed(), checkpoint=file)
    assert torch.equal(flat(whole), flat(resumed))


def test_unusable_input_is_named(few):
    with pytest.raises(UnusableInput, match="the pseudo rate is 0"):
        alternating(few, rate=0.0)
    with pytest.raises(UnusableInput, match="64 unlabelled images for minibatches of 96"):
        alternating(few, batch_size=96)
    with pytest.raises(UnusableInput, match="`FreeTraining` steps more than once"):
        Alternating.of(FreeTraining(**BARE), few.x, few.y, 0.5)
    recipe = SelfTraining(
        unlabelled=few.x, teacher=Standard(**BARE), student=SelfTraining(unlabelled=few.x), pseudo_rate=0.5
    )
    with pytest.raises(UnusableInput, match="leave pseudo_rate out"):
        recipe.fit(small_network(), few, Linf(0.1), generator=seed())
