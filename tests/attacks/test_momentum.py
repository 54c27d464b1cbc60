"""On a random network with a closed-form optimum: the memory is worth what draws at one point would be."""

import pytest
import torch
from tests.attacks.curved import curved, follows, project, value_and_slope
from tests.attacks.test_apgd import margin_loss_of
from torch import nn

from unmask.attacks import PGD, MomentumPGD
from unmask.attacks.momentum import flipped
from unmask.classifier import Classifier
from unmask.errors import Unsupported, UnusableInput
from unmask.gradients import EOT, Exact
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf, threat_model

DIMS, N = 64, 40


class NoisyLinear(nn.Module):
    """The margin loss is (w + noise) . x: its mean is largest at the corner sign(w), whatever the noise."""

    def __init__(self, sigma):
        super().__init__()
        self.sigma = sigma
        self.w = nn.Parameter(torch.randn(DIMS, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        flat = x.flatten(1) - 0.5
        value = ((self.w + self.sigma * torch.randn_like(flat)) * flat).sum(1)
        return torch.stack([torch.zeros_like(value), value], 1)


def gained(attack, sigma):
    """Share of the largest possible gain of the mean margin loss."""
    network = NoisyLinear(sigma)
    x = torch.full((N, 1, 8, 8), 0.5)
    classifier = Classifier(network)
    streams = Streams.seeded(0, torch.arange(N))
    x_adv = attack.run(classifier, x, torch.zeros(N, dtype=torch.int64), Linf(epsilon=0.1), generator=streams)
    moved = (x_adv - x).flatten(1) @ network.w.detach()
    assert classifier.meter.forwards <= 60 * N
    return float(moved.mean() / (0.1 * network.w.detach().abs().sum()))


def test_reaches_the_corner_of_a_silent_network():
    assert gained(MomentumPGD(objective=margin_loss, early_stop=False), 0.0) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("sigma", [3.0, 6.0])
def test_one_draw_a_step_beats_many_draws_at_few_points(sigma):
    """All spend 60 draws. A gradient draw has `1 / sigma^2` as much signal as noise."""
    ours = gained(MomentumPGD(objective=margin_loss, early_stop=False, steps=60), sigma)
    one = gained(PGD(objective=margin_loss, early_stop=False, steps=59), sigma)
    ten = gained(
        PGD(objective=margin_loss, gradient=EOT(draws=10), early_stop=False, steps=5, rel_step_size=0.5),
        sigma,
    )
    assert ours > one + 0.1
    assert ours > ten + 0.05
    # Sixty draws at one point are as much as anyone can know: their sign is right with probability Phi.
    network = NoisyLinear(sigma)
    right = torch.distributions.Normal(0.0, 1.0).cdf(network.w.detach().abs() * 60**0.5 / sigma)
    ideal = float(((2 * right - 1) * network.w.detach().abs()).sum() / network.w.detach().abs().sum())
    assert ours > ideal - 0.35


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.2), ("l2", 0.8), ("l1", 2.0)])
def test_every_step_follows_a_running_mean_by_steps_that_shrink(norm, epsilon):
    net, steps = curved(seed=2), 12
    attack = MomentumPGD(steps=steps, objective=margin_loss, early_stop=False)
    threat = threat_model(norm, epsilon)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    for n in range(len(net.x)):
        point, mean, path = net.asked[0][n], torch.zeros_like(net.x[n]), []
        for step in range(steps):
            path.append(point)
            _, slope = value_and_slope(margin_loss_of(net, int(net.y[n])), point)
            mean = 0.9 * mean + 0.1 * slope
            if norm == "linf":
                direction = mean.sign()
            elif norm == "l2":
                direction = mean / mean.norm()
            else:
                direction = torch.where(mean.abs() == mean.abs().max(), mean.sign(), 0.0)
            length = 0.25 * epsilon * (steps - step) / steps
            point = project(point + length * direction, net.x[n], norm, epsilon)
        follows(net.asked, n, path)
        torch.testing.assert_close(found[n], point, rtol=0, atol=1e-6)  # the last, not the best


def test_flipped_is_the_share_of_the_slope_with_another_sign():
    before = torch.tensor([[1.0, -1.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    after = torch.tensor([[3.0, 1.0, 4.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert flipped(before, after).tolist() == [0.125, 1.0, 0.0]


def draws_a_step(sigma, **options):
    """Mean number of draws at a point."""
    x = torch.full((N, 1, 8, 8), 0.5)
    classifier = Classifier(NoisyLinear(sigma))
    attack = MomentumPGD(objective=margin_loss, early_stop=False, steps=20, max_draws=8, **options)
    streams = Streams.seeded(0, torch.arange(N))
    attack.run(classifier, x, torch.zeros(N, dtype=torch.int64), Linf(epsilon=0.1), generator=streams)
    return classifier.meter.forwards / N / 20


def test_draws_follow_the_noise_and_the_memory_counts():
    # Silent: the first step draws twice, to see that nothing changes; no other step does.
    assert draws_a_step(0.0) == pytest.approx(21 / 20)
    quiet, loud = draws_a_step(0.5), draws_a_step(20.0)
    assert 21 / 20 <= quiet < 1.2
    assert quiet < loud < 8
    assert draws_a_step(20.0, flips=0.02) > loud
    assert draws_a_step(20.0, flips=1.0) == 1


def test_an_example_draws_for_itself():
    """Its own noise, so that equality can be exact, whoever else is in the batch."""

    class Own(Exact):
        def estimate(self, classifier, objective, x, y, *, generator):
            est = super().estimate(classifier, objective, x, y, generator=generator)
            return type(est)(est.value, est.grad + 3 * generator.normal(*x.shape[1:]), est.outputs)

    classifier = Classifier(NoisyLinear(0.0), deterministic=True)
    x, y = torch.full((6, 1, 8, 8), 0.5), torch.zeros(6, dtype=torch.int64)
    attack = MomentumPGD(objective=margin_loss, gradient=Own(), early_stop=False, steps=8, max_draws=6)
    some = torch.tensor([1, 4])
    whole = attack.run(classifier, x, y, Linf(epsilon=0.1), generator=Streams.seeded(0, torch.arange(6)))
    part = attack.run(classifier, x[some], y[some], Linf(epsilon=0.1), generator=Streams.seeded(0, some))
    torch.testing.assert_close(whole[some], part, rtol=0, atol=0)


def test_a_bad_number_of_draws_is_named():
    with pytest.raises(UnusableInput, match="max_draws=0"):
        MomentumPGD(max_draws=0)


class OwnNoise(Exact):
    """The exact gradient and noise of the example's own."""

    def estimate(self, classifier, objective, x, y, *, generator):
        est = super().estimate(classifier, objective, x, y, generator=generator)
        return type(est)(est.value, est.grad + 0.5 * generator.normal(*x.shape[1:]), est.outputs)


class Running:
    """One image with draws repeated where the mean's sign is not settled. `path`: every estimate's step and point."""

    def __init__(self, net, n, draws, flips, *, random_start=True, decay=0.9, steps=12):
        x, y, self.path, self.again = net.x[n], int(net.y[n]), [], 0
        one, threat = net.streams()[n : n + 1], Linf(epsilon=0.2)
        point = threat.random_start(x[None], generator=one)[0] if random_start else x
        mean = torch.zeros_like(x)
        for step in range(steps):
            streams, lost = one.spawn("draws"), torch.inf
            for draw in range(draws):
                if lost <= flips:
                    break
                self.again += draw > 0
                self.path.append((step, point))
                slope = value_and_slope(margin_loss_of(net, y), point)[1] + 0.5 * streams.normal(*x.shape)[0]
                before, mean = mean, decay * mean + (1 - decay) * slope
                lost = float(mean.abs()[before.sign() != mean.sign()].sum() / mean.abs().sum())
            length = 0.25 * 0.2 * (steps - step) / steps
            point = project(point + length * mean.sign(), x, "linf", 0.2)
        self.end = point


@pytest.mark.parametrize(("draws", "options"), [(4, {}), (4, {"random_start": False, "decay": 0.5}), (2, {})])
def test_who_is_not_settled_draws_again_at_the_same_point(draws, options):
    net = curved(seed=2)
    attack = MomentumPGD(
        steps=12,
        max_draws=draws,
        flips=0.15,
        objective=margin_loss,
        gradient=OwnNoise(),
        early_stop=False,
        **options,
    )
    found = attack.run(net.classifier(), net.x, net.y, Linf(epsilon=0.2), generator=net.streams())
    ones = [Running(net, n, draws, 0.15, **options) for n in range(len(net.x))]
    waiting, asked = [list(one.path) for one in ones], iter(net.asked)
    for step in range(12):
        while left := [n for n, path in enumerate(waiting) if path and path[0][0] == step]:
            points = next(asked)
            assert len(points) == len(left)
            for row, n in enumerate(left):
                torch.testing.assert_close(points[row], waiting[n].pop(0)[1], rtol=0, atol=1e-6)
    assert next(asked, None) is None
    for n, one in enumerate(ones):
        torch.testing.assert_close(found[n], one.end, rtol=0, atol=1e-6)
    assert 0 < sum(one.again for one in ones) < (draws - 1) * 12 * len(net.x)


def test_who_is_fooled_leaves_and_the_others_walk_on():
    net = curved(seed=2)
    attack = MomentumPGD(steps=12, objective=margin_loss, random_start=False)
    found = attack.run(net.classifier(), net.x, net.y, Linf(epsilon=0.2), generator=net.streams())
    left, mean, points = list(range(len(net.x))), torch.zeros_like(net.x), net.x.clone()
    for step, asked in enumerate(net.asked):
        assert len(asked) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(asked[row], points[n], rtol=0, atol=1e-9)
            value, slope = value_and_slope(margin_loss_of(net, int(net.y[n])), points[n])
            mean[n] = 0.9 * mean[n] + 0.1 * slope
            if value > 0:
                torch.testing.assert_close(found[n], points[n], rtol=0, atol=1e-6)
                left.remove(n)
            move = points[n] + 0.05 * (12 - step) / 12 * mean[n].sign()
            points[n] = project(move, net.x[n], "linf", 0.2)
    assert 0 < len(left) < len(net.x)
    for n in left:
        torch.testing.assert_close(found[n], points[n], rtol=0, atol=1e-6)


def test_it_says_what_it_is_and_who_cannot_count_pixels():
    assert MomentumPGD(steps=7).describe() == "momentum PGD-7"
    assert MomentumPGD(steps=7, random_start=False).describe() == "momentum PGD-7 from the image"
    assert MomentumPGD(steps=7, max_draws=3).cost(4).estimates == 21
    assert MomentumPGD(max_draws=1).max_draws == 1
    net = curved()
    with pytest.raises(Unsupported, match=r"^`MomentumPGD` "):
        MomentumPGD().run(net.classifier(), net.x, net.y, threat_model("l0", 1), generator=net.streams())
