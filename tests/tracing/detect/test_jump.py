"""What tells a step from a kink: the piece of the way in which the logits change most."""

from types import SimpleNamespace

import pytest
import torch
from tests.tracing.networks import Wrapped

from unmask.classifier import Classifier
from unmask.tracing.detect.jump import HALVINGS, Jump, chaos
from unmask.tracing.record.compare import SCALES
from unmask.tracing.record.keeping import Recording

FROM, TO = 0.2, 0.8


def jump_of(step, name):
    """Between grey images, and the operations of that name."""
    classifier = Classifier(Wrapped(step))
    recording = Recording(classifier)
    base, far = (recording(torch.full((2, 1, 4, 4), level), seed=0) for level in (FROM, TO))
    asked = [r for r in base.records if r.name == name]
    assert asked
    return Jump(recording, base, far, {r.key for r in base.records}), asked


def test_all_of_a_step_passes_through_it_and_nothing_beside_it():
    def both(x):
        smooth = 0.1 * torch.sin(x)
        return smooth + torch.round(2 * x)

    jump, step = jump_of(both, "round")
    beside = [r for r in jump.base.records if r.name == "sin"]
    assert jump.share(step) == pytest.approx(1, abs=0.01)
    assert jump.share(beside) < 0.01


def test_two_steps_at_one_place_share_it():
    def both(x):
        return torch.round(2 * x) + 3 * torch.floor(2 * x + 0.5)

    jump, first = jump_of(both, "round")
    assert jump.share(first) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("step", [lambda x: torch.relu(x - 0.5), lambda x: (x - 0.5).abs(), lambda x: x * x])
def test_a_kink_is_none(step):
    jump, asked = jump_of(lambda x: torch.clamp(step(x), -9, 9), "clamp")
    assert jump.share(asked) == 0


def test_it_costs_a_forward_a_halving_and_one_recorded():
    jump, step = jump_of(lambda x: torch.round(2 * x), "round")
    meter = jump.classifier.meter
    before = meter.forwards
    jump.share(step)
    first = meter.forwards - before
    jump.share(step)
    assert first - (meter.forwards - before - first) == 2 * (HALVINGS + 3)


@pytest.mark.parametrize(
    ("small", "large", "ratio"),
    [(1.0, 16.0, 1 / 16), (3.0, 3.0, 1.0), (0.1, 0.4, 0.25), (0.0, 0.5, 0.0), (0.0, 0.0, 0.0)],
)
def test_how_much_the_smallest_move_changes_beside_the_largest(small, large, ratio):
    def run(size):
        return SimpleNamespace(logits=torch.tensor([[1.0, 1.0 + size]]))

    sizes = dict.fromkeys(SCALES, 7.0) | {SCALES[-1]: small, SCALES[0]: large}
    found = chaos(run(0.0), {scale: run(size) for scale, size in sizes.items()})
    assert found == pytest.approx(ratio)
