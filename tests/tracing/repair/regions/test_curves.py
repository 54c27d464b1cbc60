"""The smeared curve of a function: near it where the smear is small, flat nowhere that it was seen to change."""

import pytest
import torch
import torch.nn.functional as F
from tests.tracing.networks import Wrapped
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.regions.curves import curve
from unmask.tracing.repair.rewrite import Rewritten
from unmask.tracing.repair.rules import along

GIVEN = torch.linspace(-20, 20, 801)


def ramp(a):
    return F.relu(a + 1) - F.relu(a - 1)


def smeared(function, share):
    fit = curve(GIVEN, function(GIVEN), share)
    assert fit is not None
    a = GIVEN.clone().requires_grad_()
    value = along(a, *fit[1:])
    return value.detach(), torch.autograd.grad(value.sum(), a)[0]


@pytest.mark.parametrize(
    "function", [ramp, torch.tanh, lambda a: -torch.sigmoid(a), lambda a: (-a * a / 9).exp()]
)
def test_it_is_the_function_averaged_over_its_width(function):
    share, generator = 0.25, torch.Generator().manual_seed(0)
    width = share * GIVEN.square().mean().sqrt()
    noise = torch.randn(4000, 1, generator=generator)
    inner = GIVEN.abs() < 14
    expected = function(GIVEN + width * noise).mean(0)
    value, _ = smeared(function, share)
    torch.testing.assert_close(value[inner], expected[inner], atol=0.06, rtol=0)


def test_far_from_its_threshold_there_is_a_slope_and_nearer_more_of_it():
    _, slope = smeared(ramp, 0.5)
    assert (slope > 0).all()
    assert slope[400] > 3 * slope[100] > 0


def test_where_nothing_changes_there_is_no_curve():
    assert curve(GIVEN, torch.ones_like(GIVEN), 0.5) is None
    assert curve(torch.ones(5), torch.rand(5), 0.5) is None
    assert curve(torch.tensor([float("nan")]), torch.ones(1), 0.5) is None


def test_what_is_not_finite_does_not_count():
    made = ramp(GIVEN)
    made[7] = torch.inf
    fit = curve(GIVEN, made, 0.25)
    assert fit is not None
    assert all(abs(height) < 3 for height in fit[3])


@pytest.mark.parametrize("function", [ramp, lambda a: F.silu(a) / a], ids=["ramp", "silu"])
def test_it_follows_what_changes_most_where_the_identity_follows_all_alike(function):
    """Pixels near a threshold matter more than those far from it: the soft curve says so."""
    network = Wrapped(lambda x: function(400 * (x - 0.5)))
    repairs = {r.name: r for r in propose(suspects(network))}
    assert {"curve", "curve, narrow"} <= set(repairs)
    x = images().requires_grad_()
    weight = network.read_out.weight[0].reshape(4, 4)
    slopes = {}
    for name in ("identity", "curve, narrow"):
        (found,) = torch.autograd.grad(Rewritten(network, repairs[name].rewrite)(x)[:, 0].sum(), x)
        slopes[name] = (found / weight).abs()
    near = ((x - 0.5).abs() < 0.05).detach()
    assert slopes["curve, narrow"][near].mean() > 2 * slopes["curve, narrow"][~near].mean()
    assert slopes["identity"].std() < 0.01 * slopes["identity"].mean()
