"""Geometry against closed forms and against a general solver."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.threat import BALLS, L1, L2, Linf, threat_model

norms = pytest.mark.parametrize("norm", list(BALLS))


def draw(
    seed: int, examples: int = 4, dims: int = 12, reach: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(examples, dims, generator=rng)
    return x, x + reach * torch.randn(examples, dims, generator=rng)


@norms
def test_distance_is_the_norm_of_the_difference(norm):
    x, x_adv = draw(0)
    expected = torch.linalg.vector_norm((x_adv - x).double(), BALLS[norm].p, dim=1)
    torch.testing.assert_close(threat_model(norm, 1.0).distance(x_adv, x), expected)


def test_distance_does_not_underflow():
    x = torch.zeros(1, 4, dtype=torch.float64)
    assert L2(epsilon=1.0).distance(x + 1e-200, x).item() == pytest.approx(2e-200)


@norms
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), epsilon=st.sampled_from([0.0, 1e-9, 8 / 255, 0.3, 2.0]))
def test_settle_ends_inside_exactly_and_project_within_rounding(norm, seed, epsilon):
    threat = threat_model(norm, epsilon)
    x, x_adv = draw(seed)
    assert threat.contains(threat.settle(x_adv, x), x).all()
    projected = threat.project(x_adv, x)
    assert (threat.distance(projected, x) <= epsilon + 1e-6 * max(epsilon, 1)).all()
    assert ((projected >= 0) & (projected <= 1)).all()
    inside = threat.random_start(x, generator=Streams.seeded(seed, torch.arange(len(x))))
    assert (threat.distance(inside, x) <= epsilon + 1e-6 * max(epsilon, 1)).all()
    torch.testing.assert_close(threat.project(inside, x), inside, atol=1e-6, rtol=0)


@pytest.mark.parametrize("epsilon", [0.2, 8 / 255, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_step_in_the_maximum_norm_ends_on_floats_inside_the_ball(epsilon, dtype):
    """What is a rounding outside may fool a staircase, end an attack, and fool nobody once it is settled."""
    x = draw(5, examples=64)[0].to(dtype)
    ball = Linf(epsilon=epsilon)
    for sign in (-1, 1):
        x_adv = ball.projection(x)(x + sign * torch.ones_like(x))
        assert ball.contains(x_adv, x).all()
        assert torch.equal(ball.settle(x_adv, x), x_adv)
        within = (x + sign * epsilon).clamp(0, 1)
        assert ((x_adv - within).abs() <= torch.finfo(dtype).eps).all()


@norms
def test_what_lies_in_the_ball_is_settled_where_it_is(norm):
    x, x_adv = draw(2, reach=0.01)
    x_adv = x_adv.clamp(0, 1)
    ball = threat_model(norm, 1.1 * threat_model(norm, 1.0).distance(x_adv, x).max().item())
    torch.testing.assert_close(ball.settle(x_adv, x), x_adv, rtol=0, atol=6e-8)


@norms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_what_rounding_leaves_outside_comes_in_by_a_hair(norm, dtype):
    x, x_adv = (v.clamp(0, 1).to(dtype) for v in draw(3, examples=64))
    ball = threat_model(norm, 0.3)
    settled, nearest = ball.settle(x_adv, x), ball.project(x_adv.double(), x.double())
    assert (ball.distance(settled, x) <= 0.3).all()
    # An example that fell back on its clean image would be as far off as the ball is wide.
    assert (ball.distance(settled.double(), nearest) < 0.01).all()


@norms
def test_a_ball_narrower_than_floats_lie_apart_is_settled_in_where_there_are_floats(norm):
    x = torch.tensor([[0.5], [1e-3]])  # neighbours are 6e-8 apart, and 1e-10
    settled = threat_model(norm, 4e-8).settle(x + 1, x)
    assert settled[0] == x[0]
    assert 3.9e-8 < settled[1] - x[1] <= 4e-8


@norms
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_a_projection_with_out_writes_and_then_only_there(norm, dtype):
    threat = threat_model(norm, 0.3)
    x, x_adv = (t.to(dtype) for t in draw(1))
    before = x.clone(), x_adv.clone()
    projected = threat.project(x_adv, x)
    threat.settle(x_adv, x)
    threat.contains(x_adv, x)
    assert torch.equal(x, before[0])
    assert torch.equal(x_adv, before[1])
    assert threat.project(x_adv, x, out=x_adv) is x_adv
    assert torch.equal(x_adv, projected)
    assert torch.equal(x, before[0])


@norms
def test_a_projection_around_clean_inputs_writes_what_project_returns(norm):
    threat = threat_model(norm, 0.3)
    x, x_adv = draw(7)
    x_adv[0, ..., 0] = torch.nan
    before, projected = x.clone(), threat.project(x_adv, x)
    project = threat.projection(x)
    assert project(x_adv) is x_adv
    torch.testing.assert_close(x_adv, projected, atol=1e-6, rtol=0, equal_nan=True)
    torch.testing.assert_close(project(x_adv), projected, atol=1e-6, rtol=0, equal_nan=True)
    assert torch.equal(x, before)


@norms
def test_a_random_start_has_the_memory_format_of_the_clean_inputs(norm):
    x = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    streams = Streams.seeded(1, torch.arange(4))
    start, other = (
        threat_model(norm, 0.3).random_start(clean, generator=streams.fork("same"))
        for clean in (x, x.to(memory_format=torch.channels_last))
    )
    assert torch.equal(start, other)
    assert other.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_projection_is_the_euclidean_nearest_point(norm):
    x, x_adv = (t.double() for t in draw(5, examples=3, dims=5))
    threat = threat_model(norm, 0.6)
    ours = threat.project(x_adv, x)
    for row in range(3):
        centre, start = x[row].numpy(), x_adv[row].numpy()
        # Split delta into positive and negative parts, so that both balls become linear constraints.
        bounds = [(0, 1 - c) for c in centre] + [(0, c) for c in centre]
        if norm == "linf":
            bounds = [(0, min(b, 0.6)) for _, b in bounds]
        ball = {"type": "ineq", "fun": lambda d: 0.6 - d.sum()}
        solution = minimize(
            lambda d, c=centre, s=start: ((c + d[:5] - d[5:] - s) ** 2).sum(),
            np.zeros(10),
            bounds=bounds,
            constraints=[ball] if norm == "l1" else [],
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        assert ((ours[row] - x_adv[row]) ** 2).sum().item() == pytest.approx(solution.fun, abs=1e-6)


def test_l2_projection_scales_then_clamps():
    x = torch.tensor([[0.5, 0.9]])
    projected = L2(epsilon=0.5).project(torch.tensor([[0.5 + 3.0, 0.9 + 4.0]]), x)
    torch.testing.assert_close(projected, torch.tensor([[0.8, 1.0]]))


@norms
def test_steepest_ascent_reaches_the_dual_norm(norm):
    grad = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threat = threat_model(norm, 1.0)
    direction = threat.steepest_ascent(grad)
    assert torch.linalg.vector_norm(direction.flatten(1), threat.p, dim=1).max() <= 1 + 1e-12
    gain = (direction * grad).flatten(1).sum(1)
    torch.testing.assert_close(gain, torch.linalg.vector_norm(grad.flatten(1), threat.dual_p, dim=1))
    assert not threat.steepest_ascent(torch.zeros(2, 3)).any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_steepest_ascent_ignores_the_scale_of_the_gradient(scale):
    grad = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        L2(epsilon=1).steepest_ascent(scale * grad), L2(epsilon=1).steepest_ascent(grad)
    )


def test_random_start_fills_the_ball():
    x = torch.full((4000, 2), 0.5)
    streams = Streams.seeded(0, torch.arange(4000))
    for threat, share in ((Linf(epsilon=0.2), 0.25), (L2(epsilon=0.2), 0.25), (L1(epsilon=0.2), 0.25)):
        inner = (threat.distance(threat.random_start(x, generator=streams), x) <= 0.1).double().mean()
        assert inner.item() == pytest.approx(share, abs=0.03)  # half the radius, a quarter of the area


def test_contains_refuses_nan_and_pixels_outside_the_box():
    x = torch.full((4, 3), 0.5)
    x_adv = x.clone()
    x_adv[0, 0], x_adv[1, 0], x_adv[2, 0] = torch.nan, 1.0001, 0.9
    assert Linf(epsilon=0.6).contains(x_adv, x).tolist() == [False, False, True, True]
    assert Linf(epsilon=0.3).contains(x_adv, x).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    "fields", [{"epsilon": -1}, {"epsilon": float("nan")}, {"epsilon": 1, "box": (1, 0)}]
)
def test_refuses_what_is_no_ball(fields):
    with pytest.raises(UnusableInput, match=r"give|must"):
        Linf(**fields)


def test_refuses_an_unknown_norm():
    with pytest.raises(UnusableInput, match=r"l7.*linf"):
        threat_model("l7", 0.1)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_within_is_the_projection_with_a_radius_of_each_examples_own(norm):
    x = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    x_adv = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(1))
    radii = torch.tensor([0.0, 0.05, 0.2, 0.5, 100.0], dtype=torch.float64)
    found = threat_model(norm, 7.0).within(x_adv, x, radii)
    for i, radius in enumerate(radii.tolist()):
        alone = threat_model(norm, radius).project(x_adv[i : i + 1], x[i : i + 1])
        torch.testing.assert_close(found[i : i + 1], alone, atol=1e-6, rtol=0)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_ascends_by_each_examples_own_length_and_stays_in_the_box(norm):
    x = torch.tensor([[0.5, 0.5, 0.9], [0.5, 0.5, 0.9]])
    grad = torch.tensor([[1.0, -2.0, 4.0], [0.0, 0.0, 0.0]])
    threat = threat_model(norm, 7.0)
    found = threat.ascend(x, grad, torch.tensor([0.3, 0.3]))
    expected = {
        "linf": [0.8, 0.2, 1.0],
        "l2": [0.5 + 0.3 / 21**0.5, 0.5 - 0.6 / 21**0.5, 1.0],
        "l1": [0.5, 0.3, 1.0],  # a tenth to the wall, and the other two on the next steepest
    }[norm]
    torch.testing.assert_close(found, torch.tensor([expected, [0.5, 0.5, 0.9]]))


def test_a_radius_may_be_given_by_place_and_as_a_fraction():
    assert Linf("8/255") == Linf(8 / 255) == Linf(epsilon=8 / 255)  # type: ignore[arg-type]
    assert L2("0.5").epsilon == 0.5  # type: ignore[arg-type]
    for text in ("large", "1/0"):
        with pytest.raises(UnusableInput, match="fraction"):
            Linf(text)  # type: ignore[arg-type]
