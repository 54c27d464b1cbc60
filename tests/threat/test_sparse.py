"""Few pixels, few elements and patches: exact counts, and the nearest allowed point by trying every allowed set."""

from itertools import combinations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.attacks import APGD, FAB, FGSM, PGD, BoundaryWalk, HopSkipJump, MomentumPGD, RayS, Square
from unmask.classifier import Classifier
from unmask.errors import Unsupported, UnusableInput
from unmask.randomness import Streams
from unmask.threat import BALLS, L0, NORMS, L0Elements, Linf, Patch, threat_model

counted = pytest.mark.parametrize("norm", [norm for norm in NORMS if norm not in BALLS])


def images(seed: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(*shape, generator=rng)
    return x, x + torch.randn(*shape, generator=rng)


def streams(n: int, seed: int = 0) -> Streams:
    return Streams.seeded(seed, torch.arange(n))


def allowed_sets(norm: str, k: int, shape: tuple[int, ...]) -> list[torch.Tensor]:
    """Every allowed set of an image, as a mask over its elements."""
    channels, *spatial = shape
    masks = []
    if norm == "patch":
        for top, left in product(*(range(size - k + 1) for size in spatial)):
            mask = torch.zeros(shape, dtype=torch.bool)
            mask[:, top : top + k, left : left + k] = True
            masks.append(mask)
        return masks
    units = torch.arange(spatial[0] * spatial[1] * (channels if norm == "l0-elements" else 1))
    for chosen in combinations(units.tolist(), k):
        flat = torch.zeros(len(units), dtype=torch.bool)
        flat[list(chosen)] = True
        masks.append(flat.reshape(shape if norm == "l0-elements" else (1, *spatial)).expand(shape))
    return masks


@counted
@pytest.mark.parametrize("seed", range(5))
def test_project_finds_the_nearest_of_all_allowed_points(norm, seed):
    x, x_adv = images(seed, 1, 2, 3, 4)
    ours = threat_model(norm, 2).project(x_adv, x)
    inside = x_adv.clamp(0, 1)
    gaps = [
        (torch.where(mask, inside, x) - x_adv).square().sum() for mask in allowed_sets(norm, 2, (2, 3, 4))
    ]
    torch.testing.assert_close((ours - x_adv).square().sum(), torch.stack(gaps).min())


@counted
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(0, 3))
def test_settle_ends_inside_exactly_and_leaves_what_is_inside(norm, seed, k):
    threat = threat_model(norm, k)
    x, x_adv = images(seed, 4, 3, 5, 4)
    settled = threat.settle(x_adv, x)
    assert threat.contains(settled, x).all()
    assert torch.equal(threat.settle(settled, x), settled)
    for point in (threat.random_start, threat.random_point):
        x_rand = point(x, generator=streams(4, seed))
        assert threat.contains(x_rand, x).all()
        assert torch.equal(threat.settle(x_rand, x), x_rand)


@counted
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_only_a_projection_with_out_writes_and_then_only_there(norm, dtype):
    threat = threat_model(norm, 2)
    x, x_adv = (t.to(dtype) for t in images(1, 3, 1, 4, 5))
    before = x.clone(), x_adv.clone()
    projected = threat.project(x_adv, x)
    assert projected.dtype == dtype
    assert torch.equal(x, before[0])
    assert torch.equal(x_adv, before[1])
    project = threat.projection(x)
    assert project(x_adv) is x_adv
    assert torch.equal(x_adv, projected)


def test_a_pixel_counts_once_and_its_channels_apart():
    x = torch.zeros(3, 3, 4, 4)
    x_adv = x.clone()
    x_adv[0, :, 1, 2] = 1  # one pixel, three elements
    x_adv[1, 0, 0, 0] = x_adv[1, 2, 3, 3] = 0.1  # two pixels in the corners
    assert L0(epsilon=1).distance(x_adv, x).tolist() == [1, 2, 0]
    assert L0Elements(epsilon=1).distance(x_adv, x).tolist() == [3, 2, 0]
    assert Patch(epsilon=1).distance(x_adv, x).tolist() == [1, 4, 0]
    assert L0(epsilon=1).contains(x_adv, x).tolist() == [True, False, True]
    assert L0Elements(epsilon=2).contains(x_adv, x).tolist() == [False, True, True]
    assert Patch(epsilon=3).contains(x_adv, x).tolist() == [True, False, True]


def test_the_least_change_counts():
    x = torch.full((1, 1, 2, 2), 0.5)
    x_adv = torch.nextafter(x, torch.ones(()))
    assert L0(epsilon=3).distance(x_adv, x).item() == 4
    assert not L0(epsilon=3).contains(x_adv, x).item()


@counted
def test_nan_and_pixels_outside_the_box_are_refused_in_any_place(norm):
    x = torch.full((3, 1, 4, 4), 0.5)
    x_adv = x.clone()
    x_adv[0, 0, 1, 1], x_adv[1, 0, 1, 1], x_adv[2, 0, 1, 1] = torch.nan, 1.0001, 1.0
    assert threat_model(norm, 1).contains(x_adv, x).tolist() == [False, False, True]


@counted
def test_everything_that_is_allowed_is_drawn(norm):
    x = torch.full((3000, 2, 3, 3), 0.5)
    threat = threat_model(norm, 2)
    changed = threat.random_point(x, generator=streams(3000)) != x
    seen = {tuple(map(tuple, mask.flatten(1).int().tolist())) for mask in changed}
    expected = {
        tuple(map(tuple, mask.flatten(1).int().tolist())) for mask in allowed_sets(norm, 2, (2, 3, 3))
    }
    assert seen == expected
    assert (threat.distance(threat.random_point(x, generator=streams(3000)), x) == 2).all()


@pytest.mark.parametrize(
    ("norm", "shape", "widest"),
    [
        ("l0", (3, 4, 5), 20),
        ("l0-elements", (3, 4, 5), 60),
        ("patch", (3, 4, 5), 5),
        ("l0", (7,), 7),
        ("l0", (2, 9), 9),
        ("patch", (2, 9), 9),
        ("patch", (1, 2, 3, 4), 4),
    ],
)
def test_a_radius_that_reaches_everything_is_refused_and_the_next_smaller_one_is_not(norm, shape, widest):
    threat_model(norm, widest - 1).check_radius(shape)
    with pytest.raises(UnusableInput, match="smaller"):
        threat_model(norm, widest).check_radius(shape)
    low = torch.zeros(1, *shape)
    assert (
        threat_model(norm, 1).distance(low + 1, low).item() == widest == threat_model(norm, 1).widest(shape)
    )


@counted
def test_a_count_is_whole_and_stays_so(norm):
    with pytest.raises(UnusableInput, match="whole number"):
        threat_model(norm, 8 / 255)
    assert [threat_model(norm, 1).scaled(f).epsilon for f in (0.25, 0.5, 1, 1.5, 2)] == [0, 1, 1, 2, 2]


def test_a_patch_of_vectors_has_no_place():
    with pytest.raises(UnusableInput, match="l0"):
        Patch(epsilon=2).check_radius((7,))


def test_a_patch_is_cut_to_an_image_that_is_lower_than_it():
    x, x_adv = images(0, 2, 1, 2, 6)
    threat = Patch(epsilon=3)
    changed = threat.project(x_adv, x) != x
    assert changed.flatten(1).sum(1).tolist() == [6, 6]
    assert threat.contains(threat.project(x_adv, x), x).all()


@counted
def test_attacks_that_follow_a_norm_refuse_in_one_line_with_their_name(norm):
    x, y = torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
    for attack in (
        APGD(),
        FAB(),
        FGSM(),
        PGD(),
        BoundaryWalk(),
        HopSkipJump(),
        MomentumPGD(),
        RayS(),
        Square(),
    ):
        with pytest.raises(Unsupported, match=type(attack).__name__):
            attack.run(Classifier(network), x, y, threat_model(norm, 2), generator=streams(2))


@counted
def test_random_values_fill_the_box_and_random_points_are_its_ends(norm):
    """Half of the values lie in either half of the box, whatever its ends are."""
    threat, x = threat_model(norm, 2, box=(-1.0, 3.0)), torch.full((400, 3, 6, 6), 9.0)
    start = threat.random_start(x, generator=streams(400))
    within = start[start != 9]
    assert len(within) >= 800
    assert (within >= -1).all()
    assert (within <= 3).all()
    assert within.mean() == pytest.approx(1.0, abs=0.2)
    assert within.std() == pytest.approx(4 / 12**0.5, abs=0.1)
    point = threat.random_point(x, generator=streams(400))
    ends = point[point != 9]
    assert set(ends.tolist()) == {-1.0, 3.0}
    assert ends.mean() == pytest.approx(1.0, abs=0.3)


@counted
def test_the_ball_around_is_as_long_as_the_longest_change(norm):
    x = torch.zeros(1, 3, 6, 6)
    threat = threat_model(norm, 2)
    longest = (threat.settle(x + 1, x) - x).flatten().norm()
    assert threat.around((3, 6, 6)).epsilon == pytest.approx(longest.item())
    assert threat_model(norm, 2, goal="targeted").around((3, 6, 6)).goal == "targeted"
    assert Linf(epsilon=0.1).around((3, 6, 6)) == Linf(epsilon=0.1)
