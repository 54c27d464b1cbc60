"""One operation's derivative beside the change that was seen: the numbers themselves, and where there is none."""

import math

import pytest
import torch
from tests.tracing.networks import Wrapped

from unmask.classifier import Classifier
from unmask.tracing.detect.slopes import (
    agreement,
    blocked,
    elementwise,
    examined,
    local_vjp,
    wraps,
    zero_everywhere,
)
from unmask.tracing.record.passes import record

BATCH = 4


def run(network, x):
    return record(Classifier(network), x, seed=0)


def operation(function, name, x, move):
    """The record of the operation of that name at `x`, and at `x + move`."""
    network = Wrapped(function, inputs=x[0].numel())
    base, moved = run(network, x), run(network, x + move)
    (before,), (after,) = ([r for r in t.records if name in r.name] for t in (base, moved))
    return before, after


def flat(*values, batch=BATCH):
    return torch.tensor(values).repeat(batch, 1).reshape(batch, 1, 1, -1)


def test_the_slope_of_a_linear_operation_agrees_exactly():
    x = torch.rand(BATCH, 1, 1, 16, generator=torch.Generator().manual_seed(0))
    pair = operation(lambda x: torch.mul(x, 3.0), "mul", x, 0.1 * torch.sign(x - 0.5))
    assert agreement(*pair, batch=BATCH) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("move", "expected"), [(0.02, 1.0), (2.5, -1.0)])
def test_the_slope_of_a_wave_agrees_within_a_period_only(move, expected):
    x = flat(*[0.1 * k for k in range(4)])
    pair = operation(lambda x: torch.cos(x + 2.4), "cos", x, move)
    found = agreement(*pair, batch=BATCH)
    assert found * expected > 0.9


def test_many_periods_in_one_move_agree_with_nothing():
    x = flat(*[0.1 * k for k in range(4)])
    pair = operation(lambda x: torch.sin(1000 * x), "sin", x, 0.02 + 2 * math.pi / 1000)
    assert agreement(*pair, batch=BATCH) == 0.0


def test_where_nothing_changed_there_is_nothing_to_agree_with():
    x = flat(0.1, 0.2, 0.3)
    pair = operation(torch.exp, "exp", x, 0.0)
    assert math.isnan(agreement(*pair, batch=BATCH))
    pair = operation(lambda x: torch.relu(x - 1.0), "relu", x, 0.1)  # its input changed, its result did not
    assert math.isnan(agreement(*pair, batch=BATCH))


@pytest.mark.parametrize(("asleep", "share"), [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0)])
def test_the_share_of_elements_whose_derivative_denies_their_change(asleep, share):
    x = flat(*[0.2] * asleep, *[0.5] * (4 - asleep))
    pair = operation(lambda x: torch.sigmoid(200 * (x - 0.5)), "sigmoid", x, 0.31)
    assert blocked(*pair) == pytest.approx(share)


def test_elements_that_did_not_change_do_not_count():
    x = flat(0.2, 0.5, 0.9, 0.9)
    move = torch.tensor([0.31, 0.31, 0.05, 0.0]).reshape(1, 1, 1, 4)  # the third stays in the flat part
    pair = operation(lambda x: torch.sigmoid(200 * (x - 0.5)), "sigmoid", x, move)
    assert blocked(*pair) == pytest.approx(0.5)
    pair = operation(lambda x: torch.sigmoid(200 * (x - 0.5)), "sigmoid", x, 0 * move)
    assert blocked(*pair) == 0.0


def test_by_size_a_parabolas_foot_counts_for_little():
    x = flat(0.0, 0.4)
    pair = operation(torch.square, "square", x, 0.1)
    assert blocked(*pair) == pytest.approx(0.5)  # no slope at the foot
    small, large = 0.1**2, 0.5**2 - 0.4**2
    assert blocked(*pair, by_size=True) == pytest.approx(small**2 / (small**2 + large**2), rel=1e-4)


@pytest.mark.parametrize(("jumping", "named"), [(1, False), (2, True)])
def test_a_remainder_counts_the_elements_that_moved(jumping, named):
    """Eleven of twenty move: one of them is less than a tenth of these, two are more."""
    x = torch.full((2, 1, 1, 20), 0.25)
    x[..., :jumping] = 0.49
    move = torch.zeros(20)
    move[:11] = 0.02
    assert wraps(*operation(lambda x: x % 0.5, "remainder", x, move.reshape(1, 1, 1, 20))) == named


def test_only_a_remainder_wraps():
    assert not wraps(*operation(torch.round, "round", flat(0.49, 0.49), 0.02))


def test_zero_is_zero_for_every_cotangent():
    assert zero_everywhere(operation(torch.round, "round", flat(0.3), 0.0)[0])
    assert not zero_everywhere(operation(torch.exp, "exp", flat(0.3), 0.0)[0])
    # Its slope is zero at two of three elements.
    assert not zero_everywhere(operation(lambda x: torch.relu(x - 0.5), "relu", flat(0.1, 0.2, 0.9), 0.0)[0])


def test_one_operation_alone_pulls_a_cotangent_back():
    r = operation(lambda x: torch.exp(2 * x), "exp", flat(0.1, 0.2), 0.0)[0]
    value = r.outputs[0]
    (found,) = local_vjp(value, r.inputs, torch.full(value.shape, 3.0))
    torch.testing.assert_close(found, 3 * torch.exp(2 * flat(0.1, 0.2)).reshape(found.shape))
    assert local_vjp(value, [v for v in r.inputs if not v.carries], torch.ones(value.shape)) is None


def put(x):
    x = x.clone()
    x[:, :1] = -1.0
    return x


def test_what_is_looked_at_closely():
    one = operation(torch.exp, "exp", flat(0.1, 0.2), 0.0)[0]
    assert elementwise(one)
    assert examined(one)
    for function, name, looked_at in (
        (lambda x: x * x.detach(), "mul", True),  # two ways meet: together they may be one function
        (lambda x: x * x.flatten(1).mean(1, keepdim=True), "mul", False),
        (lambda x: x.flatten(1) @ torch.eye(2), "matmul", False),
        (lambda x: x.flatten(1).sum(1, keepdim=True), "sum", True),  # a sum of two
        (lambda x: x.flatten(1).repeat(1, 20).mean(1, keepdim=True), "mean", False),
        (lambda x: x.roll(1, 1), "roll", False),  # where it puts things was decided elsewhere
        (put, "__setitem__", False),
    ):
        network = Wrapped(lambda x, f=function: x + 0 * f(x).sum(), inputs=2)
        found = next(r for r in run(network, flat(0.1, 0.2)).records if name in r.name)
        assert not elementwise(found)
        assert examined(found) == looked_at
    assert examined(operation(lambda x: x % 0.5, "remainder", flat(0.1, 0.2), 0.0)[0])
