"""The weights that a training may end with, and when it has gone on for long enough."""

from dataclasses import replace

import pytest
import torch
from tests.training.conftest import seed, small_network

from unmask.errors import Diverged
from unmask.training.base import Epoch
from unmask.training.course import Course
from unmask.training.run import Run

EPOCH = Epoch(loss=1.0, accuracy=0.5, seconds=1.0)


def course(checkpoint=None, updates=3, network=None):
    network = network or small_network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    run = Run(network, optimizer, rate=lambda step: 0.1, decay=0.5, generator=seed())
    return Course.begin(run, "Recipe", checkpoint, updates)


def weights_set_to(one, value):
    with torch.no_grad():
        for t in (*one.run.network.parameters(), *one.run.averaged.parameters()):
            t.fill_(value)


def left_in(one):
    return float(next(one.run.network.parameters()).flatten()[0].detach())


def test_the_epoch_with_the_best_robust_accuracy_stays():
    one = course()
    for value, robust in ((1.0, 0.3), (2.0, 0.4), (3.0, 0.4), (4.0, 0.1)):
        weights_set_to(one, value)
        one.add(replace(EPOCH, robust_accuracy=robust), 0.1)
    assert one.done == 4
    one.end()
    assert left_in(one) == 2.0
    assert not one.run.network.training


def test_without_robust_accuracy_the_averaged_weights_stay():
    one = course()
    weights_set_to(one, 1.0)
    one.add(EPOCH, 0.1)
    with torch.no_grad():
        for t in one.run.averaged.parameters():
            t.fill_(7.0)
    assert one.end().epochs == [EPOCH]
    assert left_in(one) == 7.0


def test_patience_counts_epochs_since_the_best():
    one = course()
    assert not one.stalled(1)  # nothing was measured
    for robust in (0.3, 0.2, 0.1):
        one.add(replace(EPOCH, robust_accuracy=robust), 0.1)
    assert not one.stalled(None)
    assert not one.stalled(3)
    assert one.stalled(2)


@pytest.mark.parametrize("broken", ["loss", "weight"])
@pytest.mark.parametrize(("robust", "kept"), [(None, 2.0), (0.3, 1.0)])
def test_what_diverges_goes_back_to_sound_weights(broken, robust, kept):
    one = course()
    for value, accuracy in ((1.0, robust), (2.0, None if robust is None else 0.2)):
        weights_set_to(one, value)
        one.add(replace(EPOCH, robust_accuracy=accuracy), 0.1)
    weights_set_to(one, float("nan") if broken == "weight" else 3.0)
    lost = EPOCH if broken == "weight" else replace(EPOCH, loss=float("inf"))
    with pytest.raises(
        Diverged, match=r"in epoch 3 .*weights of epoch 2 are kept: lower the learning rate \(0\.25\)"
    ):
        one.add(lost, 0.25)
    assert left_in(one) == kept
    assert not one.run.network.training


def test_a_checkpoint_goes_on_where_it_was_written(tmp_path):
    file = tmp_path / "checkpoint.safetensors"
    one = course(file)
    weights_set_to(one, 2.0)
    one.run.state["place"] = torch.tensor(5)
    one.run.events.append("something happened")
    one.add(replace(EPOCH, robust_accuracy=0.5), 0.1)
    torch.rand(3, generator=one.run.generator)
    one.save()
    weights_set_to(one, 3.0)
    other = course(file, updates=4, network=small_network(1))
    assert (other.done, other.run.done) == (1, 4)
    assert left_in(other) == 2.0
    assert int(other.run.state["place"]) == 5
    assert other.run.events == other.history.events == ["something happened"]
    assert torch.equal(
        torch.rand(3, generator=other.run.generator), torch.rand(3, generator=one.run.generator)
    )
    other.add(replace(EPOCH, robust_accuracy=0.4), 0.1)
    weights_set_to(other, 4.0)
    other.end()
    assert left_in(other) == 2.0


def test_no_file_no_checkpoint(tmp_path):
    course().save()
    assert not list(tmp_path.iterdir())
