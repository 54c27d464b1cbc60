"""Of large images few points are asked about, and what depends on the batch is seen all the same."""

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.diagnostics import preflight
from unmask.diagnostics.comparison import points_around
from unmask.errors import UnusableInput
from unmask.randomness import Streams


@pytest.mark.parametrize(("side", "points"), [(64, 24), (112, 8)])
def test_points_are_fewer_where_images_are_large(side, points):
    x = torch.rand(8, 3, side, side)
    streams = Streams.seeded(0, torch.arange(8), "points")
    assert len(points_around(x, None, (0.0, 1.0), streams)) == points


class Centred(nn.Module):
    """Subtracts the mean over its batch, as a normalisation left in train mode does."""

    def forward(self, x):
        x = x.mean((2, 3))
        return 40 * (x - x.mean(0)) + 0.1 * x


def test_a_network_on_large_images_that_depends_on_its_batch_is_found():
    x = torch.rand(8, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    network = Centred()
    y = network(x).argmax(1)
    streams = Streams.seeded(0, torch.arange(8), "large")
    with pytest.raises(UnusableInput, match="batch"):  # for it is of no use alone
        preflight(Classifier(network), x, y, generator=streams)
