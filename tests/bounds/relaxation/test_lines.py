"""Lines around activations, on every region, against dense samples of the function itself."""

import pytest
import torch

from unmask.bounds.relaxation.lines import relu_lines, sigmoid_lines, tanh_lines

CASES = {
    "relu": (relu_lines, torch.relu),
    "sigmoid": (sigmoid_lines, torch.sigmoid),
    "tanh": (tanh_lines, torch.tanh),
}


def intervals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Wide and thin, on either side of zero and across it, up to saturation, and single points."""
    generator = torch.Generator().manual_seed(0)
    scale = 10 ** torch.empty(count, dtype=torch.float64).uniform_(-8, 2.5, generator=generator)
    middle = torch.empty(count, dtype=torch.float64).normal_(generator=generator) * scale
    width = 10 ** torch.empty(count, dtype=torch.float64).uniform_(-9, 2.5, generator=generator)
    width[::50] = 0
    return middle - width / 2, middle + width / 2


@pytest.mark.parametrize("name", CASES)
def test_lines_enclose_the_function(name):
    lines_of, function = CASES[name]
    lower, upper = intervals(20_000)
    lines = lines_of(lower, upper)
    for t in torch.linspace(0, 1, 101, dtype=torch.float64):
        z = (lower + t * (upper - lower)).clamp(lower, upper)
        value = function(z)
        slack = 1e-15 * (1 + z.abs())
        assert (lines.lower_slope * z + lines.lower_offset <= value + slack).all()
        assert (value <= lines.upper_slope * z + lines.upper_offset + slack).all()


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_lines_touch_the_function(name):
    """Sound but loose lines would pass the test above: at some point of the interval each line must touch."""
    lines_of, function = CASES[name]
    lower, upper = intervals(5_000)
    wide = (upper - lower) > 1e-3
    lower, upper = lower[wide], upper[wide]
    lines = lines_of(lower, upper)
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)[:, None]
    z = lower + t * (upper - lower)
    above = (lines.upper_slope * z + lines.upper_offset - function(z)).amin(0)
    below = (function(z) - lines.lower_slope * z - lines.lower_offset).amin(0)
    assert above.max() < 1e-3
    assert below.max() < 1e-3


def test_relu_takes_the_smaller_area():
    lines = relu_lines(torch.tensor([-1.0, -2.0, 1.0, -3.0]), torch.tensor([2.0, 1.0, 2.0, -1.0]))
    assert lines.lower_slope.tolist() == [1, 0, 1, 0]
    torch.testing.assert_close(lines.upper_slope, torch.tensor([2 / 3, 1 / 3, 1.0, 0.0]))
