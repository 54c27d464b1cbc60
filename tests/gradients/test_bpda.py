import pytest
import torch
from tests.gradients.models import Linear, Quadratic, batch

from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.gradients import BPDA, StraightThrough
from unmask.objectives import Undetected, cross_entropy, margin_loss
from unmask.types import Outputs


def estimate(estimator, classifier, objective, x, y):
    return estimator.estimate(classifier, objective, x, y, generator=torch.Generator().manual_seed(0))


def test_rounded_network_gets_the_gradient_of_the_smooth_one():
    smooth = Linear()
    x, y = batch(6)
    rounded = Classifier(lambda t: smooth((t * 4).round() / 4)).with_surrogate(smooth)
    est = estimate(BPDA(), rounded, margin_loss, x, y)
    with torch.no_grad():
        logits = smooth((x * 4).round() / 4)
    assert torch.equal(est.outputs.logits, logits)
    assert torch.equal(est.value, margin_loss(Outputs(logits), y))
    other = logits.scatter(1, y[:, None], -torch.inf).argmax(1)  # the rival in the true network
    truth = (smooth.weight[other] - smooth.weight[y]).reshape(x.shape).detach()
    torch.testing.assert_close(est.grad, truth)


def test_pulls_the_objective_back_from_the_true_logits_not_from_the_surrogates():
    network, surrogate = Linear(seed=0), Linear(seed=1)
    x, y = batch(6)
    est = estimate(BPDA(surrogate), Classifier(network), cross_entropy, x, y)
    with torch.no_grad():
        slope = network(x).softmax(1) - torch.nn.functional.one_hot(y, 4)
    torch.testing.assert_close(est.grad, (slope @ surrogate.weight).reshape(x.shape).detach())


def test_own_surrogate_goes_before_the_classifiers():
    network, mine, other = Linear(seed=0), Linear(seed=1), Linear(seed=2)
    x, y = batch(3)
    classifier = Classifier(network)
    mine_alone = estimate(BPDA(mine), classifier, margin_loss, x, y).grad
    assert torch.equal(
        estimate(BPDA(mine), classifier.with_surrogate(other), margin_loss, x, y).grad, mine_alone
    )
    assert not torch.equal(
        estimate(BPDA(), classifier.with_surrogate(other), margin_loss, x, y).grad, mine_alone
    )


def test_the_detectors_slope_comes_from_the_surrogate_when_it_has_one():
    network, detector = Linear(), torch.linspace(-1, 1, 12)

    def detecting(t):
        return Outputs(network(t), t.flatten(1) @ detector + 5)

    x, y = batch(3)
    hidden = Classifier(lambda t: Outputs(network(t), detecting(t).detector_score.round()))
    combined = Undetected(margin_loss, weight=2.0)
    est = estimate(BPDA(detecting), hidden, combined, x, y)
    torch.testing.assert_close(
        est.grad, network.margin_loss_gradient(x, y) - 2 * detector.reshape(x.shape[1:])
    )
    assert torch.equal(est.outputs.detector_score, detecting(x).detector_score.round().detach())


def test_without_surrogate_says_how_to_get_one():
    x, y = batch(1)
    with pytest.raises(Unsupported, match=r"`BPDA` needs a surrogate; this classifier has none\. Use `class"):
        estimate(BPDA(), Classifier(Quadratic()), margin_loss, x, y)


def test_surrogate_with_other_classes_is_named():
    x, y = batch(1)
    with pytest.raises(Unsupported, match=r"\[1, 4\].*\[1, 2\]"):
        estimate(BPDA(Linear()), Classifier(Quadratic()), margin_loss, x, y)


@pytest.mark.parametrize("bad", [torch.inf, -torch.inf, torch.nan])
def test_a_surrogate_that_is_not_finite_somewhere_spoils_no_value_and_no_other_slope(bad):
    network, surrogate = Linear(seed=0), Linear(seed=1)

    def broken(t):
        return surrogate(t) + torch.tensor([0.0, 0.0, 0.0, bad])

    x, y = batch(3)
    est = estimate(BPDA(broken), Classifier(network), cross_entropy, x, y)
    assert torch.equal(est.value, cross_entropy(Outputs(network(x).detach()), y))
    with torch.no_grad():
        slope = network(x).softmax(1) - torch.nn.functional.one_hot(y, 4)
    slope[:, 3] = 0
    torch.testing.assert_close(est.grad, (slope @ surrogate.weight).reshape(x.shape).detach())
    leaf = x.clone().requires_grad_()
    value = StraightThrough(torch.round, lambda t: 3 * t + torch.where(t > 0.5, bad, 0.0))(leaf)
    assert torch.equal(value, x.round())
    (grad,) = torch.autograd.grad(value.sum(), leaf)
    assert torch.equal(grad, torch.where(x > 0.5, 0.0, 3.0))


def test_one_pass_serves_for_both_where_values_are_promised_to_be_the_same():
    network = Linear()
    x, y = batch(3)
    through = StraightThrough(lambda t: (t * 4).round() / 4)
    calls = []

    def deployed(t):
        calls.append("network")
        return network((t * 4).round() / 4)

    classifier = Classifier(deployed).with_surrogate(lambda t: network(through(t)))
    once, twice = (estimate(BPDA(same_values=s), classifier, margin_loss, x, y) for s in (True, False))
    assert calls == ["network"]  # the second one's
    for field in ("value", "grad"):
        torch.testing.assert_close(getattr(once, field), getattr(twice, field))


def test_a_surrogate_that_draws_sees_what_the_transformation_sees():
    def masked(x):
        return x * (torch.rand_like(x) > 0.5)

    x = (torch.rand(2, 50, generator=torch.Generator().manual_seed(0)) + 0.1).requires_grad_()
    for smooth in (masked, None):
        torch.manual_seed(3)
        value = StraightThrough(masked, smooth)(x)
        following = torch.rand(())
        torch.manual_seed(3)
        assert torch.equal(value, masked(x))
        assert torch.equal(following, torch.rand(()))
        (grad,) = torch.autograd.grad(value.sum(), x)
        expected = (value > 0).to(x) if smooth else torch.ones_like(x)
        assert torch.equal(grad, expected)
