"""A hidden filter that chooses a neighbour by its rank is found by its values, and has a slope to that neighbour."""

import pytest
import torch
import torch.nn.functional as F

from unmask.tracing.repair.regions.neighbourhood import sharpened
from unmask.tracing.repair.rules import fitted, ranked

IMAGES = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(0))


def chosen(images, rank, size=3):
    around = F.pad(images[:, None], [size // 2] * 4, mode="replicate").unfold(2, size, 1).unfold(3, size, 1)
    return around.flatten(4).sort(4).values[:, 0, ..., rank]


@pytest.mark.parametrize(("rank", "size"), [(4, 3), (0, 3), (8, 3), (12, 5)])
@pytest.mark.parametrize("rows", [False, True])
def test_its_rank_is_found(rank, size, rows):
    made = chosen(IMAGES, rank, size)
    shape = (8, 64) if rows else (8, 8, 8)
    found = sharpened(IMAGES.reshape(shape), made.reshape(shape), ("same",))
    assert found is not None
    assert found[0] > 0.999
    assert found[1] == ("rank", rank, 0 if rows else 2, size**2, ("same",))


def test_a_blur_is_no_rank():
    blurred = F.avg_pool2d(F.pad(IMAGES[:, None], [1] * 4, mode="replicate"), 3, 1)[:, 0]
    found = sharpened(IMAGES, blurred, ("same",))
    assert found is not None
    assert found[1][0] == "filter"


def test_what_changes_is_what_has_the_rank():
    images = IMAGES.clone().requires_grad_()
    value = fitted(images, ("rank", 4, 2, 9, ("same",)), images.shape)
    torch.testing.assert_close(value.detach(), chosen(IMAGES, 4), atol=0.1, rtol=0)
    (slope,) = torch.autograd.grad(value[0, 3, 3], images)
    near = (IMAGES[0, 2:5, 2:5] - chosen(IMAGES, 4)[0, 3, 3]).abs()
    assert slope[0, 2:5, 2:5].argmax() == near.argmin()
    assert slope.sum() == pytest.approx(1.0, abs=1e-5)


def test_equal_neighbours_share_it():
    windows = torch.ones(1, 9, requires_grad=True)
    (slope,) = torch.autograd.grad(ranked(windows, 4).sum(), windows)
    torch.testing.assert_close(slope, torch.full((1, 9), 1 / 9))
