import pytest
import torch
from tests.gradients.models import Linear, NoisyGradient, batch, cosine

from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.gradients import BPDA, EOT, Exact, Smoothing
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.types import Outputs


def estimate(estimator, network, x, y, seed=0, **options):
    classifier = Classifier(network, **options)
    est = estimator.estimate(classifier, margin_loss, x, y, generator=torch.Generator().manual_seed(seed))
    return est, classifier.meter.forwards / len(x)


def test_fixed_draws_average_the_known_noise():
    x, y = batch(200)
    network = NoisyGradient(sigma=2.0)
    est, forwards = estimate(EOT(draws=10), network, x, y)
    assert forwards == 10
    deviation = est.grad.flatten(1) - network.w.detach()
    # 2400 normal numbers of variance 4 / 10: their mean square has a relative standard error of 2.9 %.
    assert float(deviation.square().mean()) == pytest.approx(0.4, rel=0.12)
    torch.testing.assert_close(est.value, est.outputs.logits[:, 1], rtol=1e-4, atol=1e-5)
    expected = (est.grad * x).flatten(1).sum(1)  # linear: the mean value belongs to the mean gradient
    torch.testing.assert_close(est.value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.0, 3.0])
def test_draws_follow_the_noise(sigma):
    x, y = batch(300)
    network = NoisyGradient(sigma)
    power = float(network.w.detach().square().sum())
    est, forwards = estimate(EOT(snr=1.0, max_draws=200), network, x, y)
    wanted = sigma**2 * 12 / power  # the n at which |w|^2 equals sigma^2 d / n
    assert max(2, 0.6 * wanted) <= forwards <= 2.5 * max(2, wanted)
    truth = network.w.detach().expand(300, -1).reshape(x.shape)
    assert float(cosine(est.grad, truth).mean()) > 0.6  # a signal over noise of one makes 0.71


def test_a_higher_ratio_buys_a_better_direction():
    x, y = batch(300)
    network = NoisyGradient(2.0)
    truth = network.w.detach().expand(300, -1).reshape(x.shape)
    est, forwards = estimate(EOT(snr=9.0, max_draws=200), network, x, y)
    # 9 / (9 + 1) under the root is 0.95; stopping at the first lucky estimate costs a little of it.
    assert float(cosine(est.grad, truth).mean()) > 0.9
    assert forwards > 20


def test_pure_noise_goes_to_the_cap_and_says_so_in_the_meter():
    x, y = batch(50)
    network = NoisyGradient(100.0)
    _, forwards = estimate(EOT(max_draws=16), network, x, y)
    assert 10 < forwards <= 16


def test_equal_draws_end_at_two_and_a_promise_at_one():
    x, y = batch(5)
    assert estimate(EOT(), Linear(), x, y)[1] == 2
    assert estimate(EOT(), Linear(), x, y, deterministic=True)[1] == 1
    assert estimate(EOT(draws=4), Linear(), x, y, deterministic=True)[1] == 4
    exact = estimate(Exact(), Linear(), x, y)[0]
    assert torch.equal(estimate(EOT(), Linear(), x, y)[0].grad, exact.grad)


def test_zero_gradients_end_at_two_and_tiny_noisy_ones_do_not():
    x, y = batch(20)
    assert estimate(EOT(), lambda t: Linear()(t).round(), x, y)[1] == 2
    tiny = NoisyGradient(100.0)
    # |gradient|^2 is about 1e-56: zero in float32
    assert estimate(EOT(max_draws=16), lambda t: tiny(t) * 1e-30, x, y)[1] > 10


def test_what_is_not_finite_does_not_burn_the_cap():
    x, y = batch(4)
    est, forwards = estimate(EOT(), lambda t: Linear()(t) * torch.inf, x, y)
    assert forwards == 2
    assert not torch.isfinite(est.grad).any()


def test_converged_examples_leave_while_noisy_ones_stay():
    class HalfNoisy(NoisyGradient):
        def forward(self, x):
            flat = x.flatten(1)
            noisy = (flat[:, :1] > 0.5).float()
            value = ((self.w + noisy * self.sigma * torch.randn_like(flat)) * flat).sum(1)
            return torch.stack([torch.zeros_like(value), value], 1)

    x, y = batch(40)
    x[:20, 0, 0, 0], x[20:, 0, 0, 0] = 0.1, 0.9
    network = HalfNoisy(100.0)
    est, forwards = estimate(EOT(max_draws=12), network, x, y)
    assert (2 * 20 + 8 * 20) / 40 < forwards < (2 * 20 + 12 * 20 + 1) / 40
    torch.testing.assert_close(est.grad[:20].flatten(1), network.w.detach().expand(20, -1))


def test_an_examples_draws_are_its_own():
    x, y = batch(12)
    classifier = Classifier(Linear())
    chosen = torch.tensor([2, 7])

    class Noisy(Exact):
        """Noise from the example's own stream, so that equality can be exact; loud for some examples."""

        def estimate(self, classifier, objective, x, y, *, generator):
            est = super().estimate(classifier, objective, x, y, generator=generator)
            loud = 1 + 20 * (x[:, :1, :1, :1] > 0.5)
            return type(est)(est.value, est.grad + loud * generator.normal(*x.shape[1:]), est.outputs)

    eot = EOT(Noisy())
    whole = eot.estimate(classifier, margin_loss, x, y, generator=Streams.seeded(0, torch.arange(12)))
    part = eot.estimate(classifier, margin_loss, x[chosen], y[chosen], generator=Streams.seeded(0, chosen))
    torch.testing.assert_close(whole.grad[chosen], part.grad)


def test_every_step_draws_afresh():
    x, y = batch(4)
    classifier = Classifier(NoisyGradient(1.0))
    streams = Streams.seeded(0, torch.arange(4))
    eot = EOT(draws=2)
    first = eot.estimate(classifier, margin_loss, x, y, generator=streams)
    second = eot.estimate(classifier, margin_loss, x, y, generator=streams)
    assert not torch.equal(first.grad, second.grad)
    again = eot.estimate(classifier, margin_loss, x, y, generator=Streams.seeded(0, torch.arange(4)))
    assert torch.equal(first.grad, again.grad)


def test_composes():
    x, y = batch(100)
    smooth = Linear(classes=2)
    noisy = Classifier(lambda t: smooth(((t + 0.3 * torch.randn_like(t)) * 4).round() / 4), surrogate=smooth)
    truth = smooth.margin_loss_gradient(x, y)
    for inner in (BPDA(), Smoothing(BPDA(), sigma=0.1, draws=2)):
        est = EOT(inner).estimate(noisy, margin_loss, x, y, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(est.grad, truth, rtol=1e-4, atol=1e-4)


def test_bad_fields_are_named():
    with pytest.raises(UnusableInput, match="draws=0"):
        EOT(draws=0)
    with pytest.raises(UnusableInput, match="max_draws=0"):
        EOT(max_draws=0)
    with pytest.raises(UnusableInput, match="snr=-1"):
        EOT(snr=-1)


def test_one_draw_is_its_own_mean():
    """Where probabilities are averaged, too: the log of a soft-max would be other logits."""
    x, y = batch(5)
    est, _ = estimate(EOT(), Linear(), x, y, deterministic=True, passes=4, average="probabilities")
    assert torch.equal(est.outputs.logits, Linear()(x))
    est, forwards = estimate(EOT(draws=1), Linear(), x, y, passes=4, average="probabilities")
    assert forwards == 1
    assert torch.equal(est.outputs.logits, Linear()(x))
    est, _ = estimate(EOT(draws=2), Linear(), x, y, passes=4, average="probabilities")
    torch.testing.assert_close(est.outputs.logits, Linear()(x).softmax(1).log())


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_outputs_and_scores_are_means_over_the_draws(average):
    x, y = batch(6)
    network, drawn = Linear(), []

    def scored(x):
        drawn.append(Outputs(network(x) + torch.randn(len(x), 4), torch.randn(len(x))))
        return drawn[-1]

    est, _ = estimate(EOT(draws=5), scored, x, y, passes=2, average=average)
    assert len(drawn) == 5
    torch.testing.assert_close(
        est.outputs.detector_score, torch.stack([o.detector_score for o in drawn]).mean(0)
    )
    logits = torch.stack([o.logits for o in drawn])
    expected = logits.mean(0) if average == "logits" else logits.softmax(2).mean(0).log()
    torch.testing.assert_close(est.outputs.logits, expected)
    torch.testing.assert_close(
        est.value, torch.stack([margin_loss(o, y) for o in drawn]).mean(0), rtol=1e-5, atol=1e-5
    )
