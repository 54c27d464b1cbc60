"""The worst point of each example, whoever offers it and in which order."""

import pytest
import torch

from unmask.worst_case import WorstCase

EVERYONE = torch.arange(3)


def points(*values):
    return torch.tensor(values)[:, None].float()


def test_keeps_the_worst_of_all_offers_in_any_order():
    generator = torch.Generator().manual_seed(0)
    values = torch.rand(5, 3, generator=generator)
    for order in (range(5), reversed(range(5))):
        worst = WorstCase(points(0, 0, 0))
        for n in order:
            worst.offer(EVERYONE, values[n][:, None], values[n])
        assert torch.equal(worst.value.float(), values.amax(0))
        assert torch.equal(worst.x_adv[:, 0], values.amax(0))


def test_only_the_examples_that_were_named():
    worst = WorstCase(points(0, 0, 0))
    took = worst.offer(torch.tensor([2, 0]), points(5, 6), torch.tensor([1.0, 2.0]))
    assert took.tolist() == [True, True]
    assert worst.x_adv[:, 0].tolist() == [6, 0, 5]
    assert worst.value.tolist() == [2, -torch.inf, 1]


def test_of_equal_values_the_greater_margin_loss_stays():
    worst = WorstCase(points(0))
    one = torch.tensor([0])
    worst.offer(one, points(1), torch.ones(1), torch.tensor([0.5]))
    assert not worst.offer(one, points(2), torch.ones(1), torch.tensor([0.4]))
    assert worst.offer(one, points(3), torch.ones(1), torch.tensor([0.6]))
    assert worst.offer(one, points(4), torch.tensor([2.0]), torch.tensor([-9.0]))  # value comes first
    assert (float(worst.x_adv), float(worst.margin_loss)) == (4, -9)


@pytest.mark.parametrize("margin_loss", [None, torch.ones(1)])
def test_nan_is_no_progress(margin_loss):
    worst = WorstCase(points(0))
    assert not worst.offer(torch.tensor([0]), points(1), torch.tensor([torch.nan]), margin_loss)
    assert float(worst.x_adv) == 0


def test_the_given_points_stay_as_they_are():
    x = points(0, 0, 0)
    WorstCase(x).offer(EVERYONE, points(1, 1, 1), torch.ones(3))
    assert torch.equal(x, points(0, 0, 0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_values_are_compared_in_double_precision_and_offered_in_any(dtype):
    worst, one = WorstCase(points(0)), torch.tensor([0])
    assert worst.offer(one, points(1), torch.ones(1, dtype=dtype), torch.zeros(1, dtype=dtype))
    assert worst.offer(one, points(2), torch.tensor([1 + 1e-12], dtype=torch.float64))
    assert not worst.offer(one, points(3), torch.ones(1, dtype=dtype))
    assert float(worst.value) == 1 + 1e-12
    assert float(worst.x_adv) == 2
