"""The line after which two passes that ought to be equal differ."""

import gc
import random
import sys

import numpy as np
import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.tracing.detect.drawing import drawing_line

OWN = random.SystemRandom()
X = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, x):
        return self.step(x).flatten(1)


def line_of(step, seeds=(0, 1)):
    return drawing_line(Classifier(Net(step)), X, seeds)


def test_a_number_in_a_variable():
    def step(x):
        x = x + 1
        noise = OWN.random()  # the line
        return x * (1 + 1e-9 * noise)

    assert line_of(step).line == step.__code__.co_firstlineno + 2
    assert line_of(step).file == __file__


def test_what_is_collected_meanwhile_is_no_line_of_the_network():
    """A generator that somebody left behind, in a cycle, ends where garbage is collected: in the midst of a pass."""

    class LeftBehind:
        def __init__(self):
            self.lines = self.read()
            next(self.lines)

        def read(self):
            yield self
            yield  # its end would be followed as a line of the user's

    def step(x):
        kept = list(map(list, [()] * 60_000))  # so much that garbage is collected
        noise = OWN.random()  # the line
        return x * (len(kept) / 60_000 + 1e-9 * noise)

    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(50_000)
    try:
        LeftBehind()
        assert line_of(step).line == step.__code__.co_firstlineno + 2
    finally:
        gc.set_threshold(*before)


HELD = [
    lambda: np.array([OWN.random()]),
    lambda: np.float64(OWN.random()),
    lambda: [0, [OWN.random()]],
    lambda: (0, OWN.random()),
    lambda: {"a": 0, "b": {"c": OWN.random()}},
    lambda: str(OWN.random()),
    lambda: complex(OWN.random(), 1),
]


@pytest.mark.parametrize("n", range(len(HELD)))
def test_a_number_in_whatever_holds_it(n):
    draw = HELD[n]

    def step(x):
        held = draw()
        del held
        return x

    assert (
        line_of(step).line == draw.__code__.co_firstlineno
        or line_of(step).line == step.__code__.co_firstlineno + 1
    )


def test_another_way_taken_is_told_at_the_line_that_decides():
    def step(x):
        x = x + 1
        if OWN.random() < 0.5 + (0.5 if next(turns) else -0.5):  # the line
            x = x + 2
        return x

    turns = iter([False, True] * 5)
    assert line_of(step).line == step.__code__.co_firstlineno + 2


def test_tensors_are_compared_where_the_seeds_are_equal():
    generator = torch.Generator()

    def step(x):
        x = x + 1
        noise = torch.rand(2, 2, generator=generator)
        return x + 0 * noise

    generator.seed()
    assert line_of(step, (0, 0)).line == step.__code__.co_firstlineno + 2
    assert line_of(step, (0, 1)) is None


def test_torchs_own_draws_are_no_line_and_neither_is_a_pass_without_any():
    assert line_of(lambda x: x + torch.rand(2, 2), (0, 1)) is None
    assert line_of(lambda x: x * 2, (0, 0)) is None


def test_a_tracer_that_is_at_work_goes_on():
    def outer(frame, event, argument):
        return None

    before = sys.gettrace()
    sys.settrace(outer)
    try:
        line_of(lambda x: x * 2)
        assert sys.gettrace() is outer
    finally:
        sys.settrace(before)


def test_both_passes_are_metered():
    classifier = Classifier(Net(lambda x: x))
    drawing_line(classifier, X, (0, 1))
    assert classifier.meter.forwards == 2 * len(X)
