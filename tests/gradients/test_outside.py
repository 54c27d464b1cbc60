"""Networks that refuse points outside the range of images, beside which estimates look."""

import pytest
import torch
from tests.gradients.models import Quadratic, batch

from unmask.classifier import Classifier
from unmask.errors import ModelFailed
from unmask.gradients import Exact, FiniteDifference, Smoothing
from unmask.gradients.outside import asked_at
from unmask.objectives import margin_loss


class Strict(Quadratic):
    """As a JPEG codec in front of a network: no negative pixels, none above one."""

    def forward(self, x):
        if bool((x < 0).any() | (x > 1).any()):
            raise ValueError("pixels lie in [0, 1]")
        return super().forward(x)


ESTIMATORS = [FiniteDifference(samples=400, delta=0.05), Smoothing(Exact(), sigma=0.1, draws=4)]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_where_a_network_refuses_it_is_asked_inside(estimator):
    network = Strict()
    x, y = batch(3)
    x = x.clamp(0, 1)
    x[:, :, 0] = 0.0
    found = estimator.estimate(
        Classifier(network), margin_loss, x, y, generator=torch.Generator().manual_seed(0)
    )
    slope = found.grad.flatten(1)
    assert torch.cosine_similarity(slope, network.truth(x).flatten(1)).min() > 0.7


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
def test_a_network_that_always_raises_is_told(estimator):
    def broken(x):
        raise ValueError("no weights")

    x, y = batch(2)
    with pytest.raises(ModelFailed, match="no weights"):
        estimator.estimate(Classifier(broken), margin_loss, x, y, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("low", "high"), [(0.3, 0.7), (-2.0, 3.0)], ids=["inside", "beyond"])
def test_the_range_is_that_of_images_or_as_wide_as_these(low, high):
    x, points = torch.tensor([[low, high]]), torch.tensor([[-5.0, 5.0], [0.1, 0.9]])
    asked = []

    def ask(at):
        asked.append(at)
        if len(asked) == 1:
            raise ModelFailed("outside")
        return at.sum()

    asked_at(ask, points, x)
    torch.testing.assert_close(asked[1], points.clamp(min(low, 0.0), max(high, 1.0)))
