"""What every estimator promises, on the same networks."""

import pytest
import torch
from tests.gradients.models import Linear, batch

from unmask.classifier import Classifier
from unmask.gradients import BPDA, EOT, Exact, FiniteDifference, Float64, LogitScale, Smoothing
from unmask.objectives import cross_entropy, margin_loss
from unmask.randomness import Streams
from unmask.types import Outputs

SURROGATE = Linear()
# estimator, forwards per example, backwards per example
CASES = {
    "exact": (Exact(), 1, 1),
    "bpda": (BPDA(SURROGATE), 2, 1),
    "eot": (EOT(), 2, 2),
    "eot fixed": (EOT(draws=5), 5, 5),
    "eot of bpda": (EOT(BPDA(SURROGATE)), 4, 2),
    "scale": (LogitScale(scale=0.1), 1, 1),
    "scale auto": (LogitScale(), 1, 1),
    "float64": (Float64(), 1, 1),
    "float64 of scale": (Float64(LogitScale()), 1, 1),
    "spsa": (FiniteDifference(samples=6, chunk=4), 13, 0),
    "nes": (FiniteDifference("nes", samples=6), 13, 0),
    "coordinates": (FiniteDifference("coordinates", chunk=10), 25, 0),
    "smoothing": (Smoothing(sigma=1e-3, draws=3), 4, 3),
    "eot of smoothing": (EOT(Smoothing(sigma=1e-3, draws=3), draws=2), 8, 6),
}


@pytest.fixture(params=CASES, ids=lambda name: name)
def case(request):
    return CASES[request.param]


def test_cost_is_metered(case):
    estimator, forwards, backwards = case
    classifier = Classifier(Linear())
    x, y = batch(5)
    estimator.estimate(classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(0))
    meter = classifier.meter
    assert (meter.forwards, meter.backwards, meter.judge_forwards) == (5 * forwards, 5 * backwards, 0)


def test_leaves_the_world_alone(case):
    estimator = case[0]
    network = Linear().train()
    x, y = batch(5)
    before, state = x.clone(), torch.get_rng_state()
    weights = {name: t.clone() for name, t in network.state_dict().items()}
    est = estimator.estimate(
        Classifier(network), margin_loss, x, y, generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(x, before)
    assert x.grad is None
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert network.training
    assert all(p.grad is None and p.requires_grad and p.dtype == torch.float32 for p in network.parameters())
    assert all(torch.equal(t, weights[name]) for name, t in network.state_dict().items())
    assert not any(t.requires_grad for t in (est.value, est.grad, est.outputs.logits))
    assert est.grad.shape == x.shape
    assert est.grad.dtype == est.value.dtype == est.outputs.logits.dtype == torch.float32
    assert est.value.shape == (5,)
    assert est.outputs.logits.shape == (5, 4)


def test_example_does_not_depend_on_its_batch(case):
    estimator = case[0]
    x, y = batch(9)
    chosen = torch.tensor([1, 4, 8])
    classifier = Classifier(Linear())
    whole = estimator.estimate(classifier, cross_entropy, x, y, generator=Streams.seeded(0, torch.arange(9)))
    part = estimator.estimate(
        classifier, cross_entropy, x[chosen], y[chosen], generator=Streams.seeded(0, chosen)
    )
    torch.testing.assert_close(whole.grad[chosen], part.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.value[chosen], part.value, rtol=1e-4, atol=1e-5)


def test_margin_loss_of_a_linear_network(case):
    estimator = case[0]
    network = Linear()
    x, y = batch(5)
    est = estimator.estimate(
        Classifier(network), margin_loss, x, y, generator=torch.Generator().manual_seed(0)
    )
    logits = network(x).detach()
    torch.testing.assert_close(est.outputs.logits, logits, rtol=1e-4, atol=1e-4)
    truth, value = network.margin_loss_gradient(x, y), margin_loss(Outputs(logits), y)
    if estimator == LogitScale(scale=0.1):
        truth, value = 0.1 * truth, 0.1 * value
    torch.testing.assert_close(est.value, value, rtol=1e-3, atol=1e-3)
    if getattr(estimator, "method", "") not in ("spsa", "nes"):  # those hold in expectation only
        torch.testing.assert_close(est.grad, truth, rtol=1e-2, atol=1e-2)


def test_a_score_is_the_estimates_value_and_outputs_for_no_more(case):
    """Where no step follows: of a random network under equal draws; the images keep their memory and their graph."""
    estimator, forwards, backwards = case

    class Noisy(Linear):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x), 1)

    x, y = batch(4)
    asked = x.clone().requires_grad_()
    found = []
    for ask in (estimator.estimate, estimator.scored):
        classifier = Classifier(Noisy())
        one = ask(classifier, margin_loss, asked, y, generator=Streams.seeded(0, torch.arange(4)))
        assert classifier.meter.forwards <= 4 * forwards
        assert classifier.meter.backwards <= 4 * backwards
        assert not one.value.requires_grad
        assert one.grad.shape == x.shape
        found.append(one)
    torch.testing.assert_close(found[0].value, found[1].value)
    torch.testing.assert_close(found[0].outputs.logits, found[1].outputs.logits)
    torch.testing.assert_close(asked.detach(), x, rtol=0, atol=0)
    assert asked.grad is None


def test_a_score_of_the_exact_gradient_takes_no_backward_pass():
    classifier = Classifier(Linear())
    x, y = batch(4)
    found = Exact().scored(classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(0))
    assert (classifier.meter.forwards, classifier.meter.backwards) == (4, 0)
    assert not found.grad.any()
