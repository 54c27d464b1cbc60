import pytest
import torch
from tests.gradients.models import Linear, Quadratic, batch, cosine

from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import Exact, FiniteDifference
from unmask.objectives import Targeted, cross_entropy, margin_loss
from unmask.randomness import Streams


def estimate(estimator, network, objective, x, y, seed=0):
    return estimator.estimate(
        Classifier(network), objective, x, y, generator=torch.Generator().manual_seed(seed)
    )


def test_coordinates_are_exact_for_quadratics():
    network = Quadratic()
    x, y = batch(7)
    est = estimate(FiniteDifference("coordinates", delta=0.1), network, margin_loss, x, y)
    torch.testing.assert_close(est.grad, network.truth(x), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(est.outputs.logits, network(x).detach())
    assert torch.equal(est.value, est.outputs.logits[:, 1])


@pytest.mark.parametrize(("method", "excess"), [("spsa", 11.0), ("nes", 13.0)])
def test_expectation_and_variance(method, excess):
    """Unbiased, with |error|^2 of |g|^2 (d - 1) / n for signs and (d + 1) / n for normals."""
    network = Quadratic()
    x, y = batch(1)
    x = x.expand(400, -1, -1, -1)
    y = y.expand(400)
    truth = network.truth(x)
    est = estimate(FiniteDifference(method, samples=20, delta=0.05), network, margin_loss, x, y)
    power = truth.flatten(1).square().sum(1).mean()
    error = (est.grad - truth).flatten(1).square().sum(1).mean() / power
    assert float(error) == pytest.approx(excess / 20, rel=0.15)
    bias = (est.grad.mean(0) - truth[0]).square().sum() / power
    assert float(bias) < 4 * excess / (20 * 400)


@pytest.mark.parametrize("method", ["spsa", "nes"])
@pytest.mark.parametrize("n", [1, 16, 256])
def test_direction_is_as_good_at_any_batch_size(method, n):
    """A loss summed over the batch would drown each example's slope in the others'."""
    network = Quadratic()
    x, y = batch(n)
    est = estimate(FiniteDifference(method, samples=600), network, margin_loss, x, y)
    assert float(cosine(est.grad, network.truth(x)).min()) > 0.95


@pytest.mark.parametrize("method", ["spsa", "nes", "coordinates"])
def test_neither_batch_nor_chunk_changes_an_example(method):
    network = Quadratic()
    x, y = batch(11)
    chosen = torch.tensor([10, 3])
    whole = FiniteDifference(method, samples=9, chunk=1000).estimate(
        Classifier(network), margin_loss, x, y, generator=Streams.seeded(5, torch.arange(11))
    )
    part = FiniteDifference(method, samples=9, chunk=1).estimate(
        Classifier(network), margin_loss, x[chosen], y[chosen], generator=Streams.seeded(5, chosen)
    )
    torch.testing.assert_close(whole.grad[chosen], part.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("method", ["spsa", "coordinates"])
def test_chunk_bounds_the_batch(method):
    largest = 0

    def network(t):
        nonlocal largest
        largest = max(largest, len(t))
        return Linear()(t)

    x, y = batch(6)
    estimate(FiniteDifference(method, samples=10, chunk=20), network, margin_loss, x, y)
    assert largest == 18
    largest = 0
    estimate(FiniteDifference(method, samples=10, chunk=2), network, margin_loss, x, y)
    assert largest == 6


def test_per_example_objectives_are_repeated_with_their_examples():
    network = Linear()
    x, y = batch(4)
    objective = Targeted(torch.tensor([1, 2, 3, 1]))
    est = estimate(FiniteDifference("coordinates", chunk=40), network, objective, x, y)
    truth = estimate(Exact(), network, objective, x, y)
    torch.testing.assert_close(est.grad, truth.grad, rtol=1e-2, atol=1e-2)


def test_common_random_numbers_cancel_additive_noise():
    network = Linear()

    def noisy(t):
        return network(t) + 1000 * torch.randn(len(t), 4)

    x, y = batch(5)
    objective = Targeted(torch.ones(5, dtype=torch.int64))
    est = estimate(FiniteDifference("coordinates", delta=0.5), noisy, objective, x, y)
    truth = estimate(Exact(), network, objective, x, y)
    assert float(cosine(est.grad, truth.grad).min()) > 0.999


def test_sees_through_zero_gradients():
    network = Linear()

    def rounded(t):
        return (network(t) * 100).round() / 100

    x, y = batch(5)
    assert bool((estimate(Exact(), rounded, cross_entropy, x, y).grad == 0).all())
    est = estimate(FiniteDifference("coordinates", delta=0.05), rounded, cross_entropy, x, y)
    assert float(cosine(est.grad, estimate(Exact(), network, cross_entropy, x, y).grad).min()) > 0.98


def test_bad_fields_are_named():
    for fields, text in (
        ({"samples": 0}, "samples=0"),
        ({"delta": 0.0}, "delta=0.0"),
        ({"chunk": 0}, "chunk=0"),
    ):
        with pytest.raises(UnusableInput, match=text):
            FiniteDifference(**fields)
    with pytest.raises(UnusableInput, match="method='fd'"):
        FiniteDifference("fd")
