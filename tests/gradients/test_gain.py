import pytest
import torch
from tests.gradients.models import Linear, batch, cosine

from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import Exact, LogitScale
from unmask.objectives import Targeted, Undetected, cross_entropy, margin_loss
from unmask.types import Outputs


def estimate(estimator, network, objective, x, y):
    return estimator.estimate(
        Classifier(network), objective, x, y, generator=torch.Generator().manual_seed(0)
    )


def correct(network, n=60):
    """Examples and the labels that the network gives them, so that cross-entropy saturates."""
    x, _ = batch(n)
    return x, network(x).argmax(1)


def test_a_number_scales_the_logits():
    network = Linear(scale=3.0)
    x, y = batch(6)
    est = estimate(LogitScale(scale=0.5), network, cross_entropy, x, y)
    truth = estimate(Exact(), Linear(scale=1.5), cross_entropy, x, y)
    torch.testing.assert_close(est.grad, truth.grad)
    torch.testing.assert_close(est.value, truth.value)
    torch.testing.assert_close(est.outputs.logits, network(x).detach())


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3, 1e30])
def test_automatic_scale_gives_every_scale_of_logits_the_same_direction(scale):
    network = Linear(scale=scale)
    x, y = correct(network)
    est = estimate(LogitScale(), network, cross_entropy, x, y)
    unit = estimate(LogitScale(), Linear(), cross_entropy, x, y)
    assert float(cosine(est.grad.double() / scale, unit.grad).min()) > 0.999
    assert torch.isfinite(est.value).all()
    torch.testing.assert_close(est.value / scale, unit.value, rtol=1e-3, atol=1e-4)
    if scale == 1e3:
        assert (
            estimate(Exact(), network, cross_entropy, x, y).grad.flatten(1).abs().amax(1) == 0
        ).float().mean() > 0.5


def test_automatic_value_ranks_like_the_margin_loss():
    network = Linear(classes=2, scale=1e4)
    x, y = correct(network)
    value = estimate(LogitScale(), network, cross_entropy, x, y).value
    truth = estimate(Exact(), network, margin_loss, x, y).value
    assert torch.equal(value.argsort(), truth.argsort())
    wrong = estimate(LogitScale(), network, cross_entropy, x, 1 - y).value
    assert bool((wrong > 0).all())
    assert bool((value < 0).all())


def test_homogeneous_objectives_keep_value_and_gradient():
    network = Linear(scale=40.0)
    x, y = correct(network)
    for objective in (margin_loss, Targeted((y + 1) % 4)):
        est, truth = (
            estimate(LogitScale(), network, objective, x, y),
            estimate(Exact(), network, objective, x, y),
        )
        torch.testing.assert_close(est.value, truth.value, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(est.grad, truth.grad, rtol=1e-4, atol=1e-3)


def test_extreme_logits_stay_finite():
    def network(t):
        flat = t.flatten(1)
        return torch.stack([flat[:, 0] * 0, flat[:, 0] * 0, flat[:, 1] * 0 - 1e30, 1e-7 + flat[:, 2] * 0], 1)

    x, y = batch(2)
    for objective in (cross_entropy, margin_loss):
        for logits in (network, lambda t: network(t) * 0):
            est = estimate(LogitScale(), logits, objective, x, y)
            assert torch.isfinite(est.value).all()
            assert torch.isfinite(est.grad).all()


def test_logits_that_are_not_finite_stay_so():
    x, y = batch(2)
    est = estimate(LogitScale(), lambda t: Linear()(t) * torch.nan, cross_entropy, x, y)
    assert torch.isnan(est.value).all()
    assert not torch.isfinite(est.outputs.logits).any()


def test_detector_is_kept():
    network = Linear()
    x, y = batch(2)
    est = estimate(LogitScale(), lambda t: Outputs(network(t), t.flatten(1).sum(1)), margin_loss, x, y)
    torch.testing.assert_close(est.outputs.detector_score, x.flatten(1).sum(1))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_bad_scale_is_named(scale):
    with pytest.raises(UnusableInput, match=f"scale={scale}"):
        LogitScale(scale=scale)


def test_a_detectors_score_stays_in_the_objective_as_it_is():
    """Only logits are scaled."""

    def detecting(scale):
        network = Linear(scale=scale)
        return lambda x: Outputs(network(x), x.flatten(1).sum(1) - 1)

    x, y = batch(6)
    both = Undetected(cross_entropy, 1.0)
    found = estimate(LogitScale(scale=0.5), detecting(3.0), both, x, y)
    truth = estimate(Exact(), detecting(1.5), both, x, y)
    torch.testing.assert_close(found.value, truth.value)
    torch.testing.assert_close(found.grad, truth.grad)
    assert not torch.allclose(found.grad, estimate(Exact(), detecting(1.5), cross_entropy, x, y).grad)
