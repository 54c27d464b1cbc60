"""What the published scale would take: passes over passes per second."""

import time

import pytest
import torch
from torch import nn

from unmask.reproducing.forecast import Speed, Work, forecast, speed


class Slow(nn.Module):
    def forward(self, x):
        time.sleep(0.02)
        return x.flatten(1)


def test_seconds_are_passes_over_speed():
    work = Work(network=nn.Flatten, shape=(4,), gradients=300, forwards=1000)
    assert Speed(100.0, 500.0).seconds(work) == 5.0


def test_the_speed_is_that_of_the_network():
    work = Work(network=Slow, deployed=nn.Flatten, shape=(4,), gradients=36_000, batch_size=10)
    found = speed(work, "cpu")
    assert 100 < found.gradients <= 500  # ten in a fiftieth of a second, or longer
    assert found.forwards > found.gradients
    lines = forecast({"a row": work}, "cpu").splitlines()
    assert lines[0].startswith("| at the published scale | gradients | forwards |")
    assert lines[2].startswith("| a row | 36,000 | 0 |")
    assert float(lines[2].split("|")[-2]) == pytest.approx(36_000 / found.gradients / 3600, rel=0.9)
    assert torch.is_grad_enabled()
