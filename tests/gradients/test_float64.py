import pytest
import torch
from tests.gradients.models import Linear, batch, cosine
from torch import nn

from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.gradients import EOT, Exact, Float64, LogitScale
from unmask.objectives import cross_entropy, margin_loss
from unmask.types import Outputs


def estimate(estimator, network, objective, x, y):
    return estimator.estimate(
        Classifier(network), objective, x, y, generator=torch.Generator().manual_seed(0)
    )


class Sunken(nn.Module):
    """Logits sigmoid(a) of a = W x - 150: the slope exp(a) underflows float32 (exp(-104) is zero)."""

    def __init__(self):
        super().__init__()
        self.linear = Linear(classes=2)

    def forward(self, x):
        return torch.sigmoid(self.linear(x) - 150)


def test_finds_the_gradient_that_underflows_in_single_precision():
    network = Sunken()
    x, y = batch(20)
    assert bool((estimate(Exact(), network, margin_loss, x, y).grad == 0).all())
    est = estimate(Float64(), network, margin_loss, x, y)
    with torch.no_grad():
        slope = (network.linear(x).double() - 150).exp() * torch.tensor([-1.0, 1.0])
        truth = (slope @ network.linear.weight.double()).reshape(x.shape)
    truth /= truth.abs().amax((1, 2, 3), keepdim=True)  # too small for float32, hence of unit size
    torch.testing.assert_close(est.grad, truth.float(), rtol=1e-4, atol=1e-4)


def test_saturated_cross_entropy_needs_the_scale_as_well():
    network = Linear(classes=2)
    x, _ = batch(40)
    y = network(x).argmax(1)
    network.scale = 300 / float(network(x).detach().diff(dim=1).abs().median())
    size = network(x).detach().diff(dim=1)[:, 0].abs()
    chosen = (size > 110) & (size < 650)  # exp(-110) is zero in float32; float64 itself ends at exp(-745)
    x, y = x[chosen], y[chosen]
    assert len(x) >= 20
    truth = network.margin_loss_gradient(x, y)
    assert bool((estimate(Exact(), network, cross_entropy, x, y).grad == 0).all())
    # Past 37 the label's own term, 1 - p, has cancelled to zero; what is left is the rival's row.
    rival = network.weight.detach()[1 - y].reshape(x.shape)
    assert float(cosine(estimate(Float64(), network, cross_entropy, x, y).grad, rival).min()) > 0.9999
    scaled = estimate(Float64(LogitScale()), network, cross_entropy, x, y)
    assert float(cosine(scaled.grad, truth).min()) > 0.9999


def test_is_the_exact_gradient_where_that_fits():
    network = nn.Sequential(Linear(classes=5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 4)).eval()
    x, y = batch(6)
    est, truth = (estimate(e, network, cross_entropy, x, y) for e in (Float64(), Exact()))
    torch.testing.assert_close(est.grad, truth.grad, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(est.value, truth.value)
    torch.testing.assert_close(est.outputs.logits, truth.outputs.logits)


def test_follows_the_parameters_when_they_change():
    network = Linear(classes=2)
    x, y = batch(3)
    before = estimate(Float64(), network, margin_loss, x, y).grad
    with torch.no_grad():
        network.weight.mul_(2)
    torch.testing.assert_close(estimate(Float64(), network, margin_loss, x, y).grad, 2 * before)


def test_train_mode_statistics_do_not_leak_into_the_network():
    network = nn.Sequential(Linear(classes=5), nn.BatchNorm1d(5)).train()
    before = {name: t.clone() for name, t in network.state_dict().items()}
    x, y = batch(6)
    estimate(EOT(Float64(), draws=2), network, margin_loss, x, y)
    assert all(torch.equal(t, before[name]) for name, t in network.state_dict().items())


def test_functions_are_refused():
    x, y = batch(1)
    network = Linear()
    with pytest.raises(Unsupported, match=r"`Float64` needs a plain nn\.Module; this network is a function"):
        estimate(Float64(), lambda t: network(t), margin_loss, x, y)


def test_networks_that_insist_on_single_precision_are_named():
    class Single(Linear):
        def forward(self, x):
            return super().forward(x.float())

    x, y = batch(1)
    with pytest.raises(Unsupported, match="does not run in double precision"):
        estimate(Float64(), Single(), margin_loss, x, y)


def test_a_detectors_score_comes_back_in_the_images_precision():
    class Detecting(Linear):
        def forward(self, x):
            return Outputs(super().forward(x), x.flatten(1).sum(1))

    x, y = batch(3)
    found = estimate(Float64(), Detecting(classes=2), margin_loss, x, y).outputs
    assert found.detector_score.dtype == found.logits.dtype == torch.float32
    torch.testing.assert_close(found.detector_score, x.flatten(1).sum(1))
