"""A filter in the place of the identity: where neighbours are mixed, and there alone."""

import pytest
import torch
from scipy import ndimage
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import suspects
from torch import Tensor

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.regions.neighbourhood import sharpened
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import fitted

SAME = ("same",)


def pictures(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(2))


def blurred(x: Tensor) -> Tensor:
    """Of the last dimension, or of the last two of pictures."""
    sigma = [0.0] * (x.ndim - 1) + [0.8] if x.ndim == 2 else [0.0] * (x.ndim - 2) + [0.8, 0.8]
    return torch.from_numpy(ndimage.gaussian_filter(x.numpy(), sigma, mode="nearest", radius=2))


@pytest.mark.parametrize("shape", [(12, 40), (8, 12, 12), (8, 3, 12, 12)], ids=len)
def test_a_blur_is_found(shape):
    x = pictures(*shape)
    found = sharpened(x, blurred(x), SAME)
    assert found is not None
    assert found[0] > 0.99
    assert torch.allclose(fitted(x, found[1], x.shape), blurred(x), atol=1e-2)


def test_what_came_back_turned_is_turned_first():
    x = pictures(8, 12, 16)
    found = sharpened(x, blurred(x).transpose(1, 2), ("permute", (0, 2, 1)))
    assert found is not None
    made = fitted(x, found[1], torch.Size((8, 16, 12)))
    assert torch.allclose(made, blurred(x).transpose(1, 2), atol=1e-2)


@pytest.mark.parametrize(
    "made",
    [lambda x: (4 * x).round() / 4, lambda x: x.roll(1, 0), lambda x: x.new_zeros(x.shape)],
    ids=["rounded", "of another image", "constant"],
)
def test_the_identity_stays_where_no_filter_does_better(made):
    x = pictures(12, 16)
    assert sharpened(x, made(x), SAME) is None


@pytest.mark.parametrize(
    "shape", [(1, 16), (8, 4), (3, 9)], ids=["one image", "short rows", "too few numbers"]
)
def test_nothing_is_fitted_to_too_little(shape):
    x = pictures(*shape)
    assert sharpened(x, blurred(x), SAME) is None


def by_scipy(net, x):
    return torch.from_numpy(ndimage.gaussian_filter1d(x.detach().numpy(), 0.8, axis=1))


def one_by_one(net, x):
    rows = [torch.from_numpy(ndimage.gaussian_filter1d(v.detach().numpy(), 0.8)) for v in x]
    return torch.stack(rows)


@pytest.mark.parametrize("step", [by_scipy, one_by_one])
def test_the_gradient_behind_a_blur_of_scipys(step):
    """Truth: a blur is linear, so the network's own differences are its gradient."""
    network = Network(step).eval()
    smooth = next(r for r in propose(suspects(network)) if r.name == "smooth")
    x = pictures(3, 1, 4, 4).requires_grad_()
    logits = Rewritten(network, smooth.rewrite)(x)
    assert isinstance(logits, Tensor)
    (found,) = torch.autograd.grad(logits[:, 0].sum(), x)
    with torch.no_grad():
        steps = torch.eye(16).reshape(16, 1, 1, 4, 4)
        truth = torch.stack([(network(x + 0.1 * s) - network(x - 0.1 * s))[:, 0] / 0.2 for s in steps], 1)
    assert torch.cosine_similarity(found.flatten(1), truth, dim=1).min() > 0.95
