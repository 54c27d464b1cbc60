"""The certificate beside the one case where the truth is known: a linear network under Gaussian noise."""

import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.defenses import SAP, RandomizedSmoothing
from unmask.defenses.smoothing import ABSTAIN, smoothed_radius
from unmask.errors import Unsupported
from unmask.judge import judge
from unmask.threat import L1, L2, Linf


class HalfSpace(nn.Module):
    """Class 1 where the first pixel is above one half: noise moves the border nowhere, so the radius is exact."""

    def forward(self, x):
        first = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-first, first], 1)


@pytest.mark.parametrize("votes", [501, 700, 990, 1000])
def test_bound_is_clopper_and_pearsons(votes):
    low = binomtest(votes, 1000, alternative="greater").proportion_ci(0.999, method="exact").low
    expected = 0.25 * norm.ppf(low) if low > 0.5 else 0.0
    assert smoothed_radius(votes, 1000, 0.25, 0.001) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_radius_of_a_half_space_is_approached_from_below():
    classifier = Classifier(HalfSpace(), deterministic=True)
    x = torch.full((5, 1, 2, 2), 0.3)
    x[:, 0, 0, 0] = torch.tensor([0.9, 0.7, 0.5001, 0.35, 0.1])
    smoothing = RandomizedSmoothing(sigma=0.25, samples=20_000)
    found = smoothing.certify(classifier, x, generator=torch.Generator().manual_seed(0))
    truth = (x[:, 0, 0, 0] - 0.5).abs()
    assert found.prediction.tolist() == [1, 1, ABSTAIN, 0, 0]
    assert (found.radius <= truth + 1e-6).all()
    assert (found.radius[[0, 1, 3, 4]] > 0.93 * truth[[0, 1, 3, 4]]).all()
    assert float(found.radius[2]) == 0
    y = torch.tensor([1, 1, 1, 0, 1])
    assert found.certified_accuracy(y, 0.1) == pytest.approx(3 / 5)
    assert found.certified_accuracy(y, 0.3) == pytest.approx(1 / 5)
    assert classifier.meter.judge_forwards == 5 * (20_000 + 100)
    assert classifier.meter.forwards == 0


def test_certificate_does_not_depend_on_the_batch():
    classifier = Classifier(HalfSpace(), deterministic=True)
    x = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    from unmask.randomness import Streams

    smoothing = RandomizedSmoothing(samples=300)
    whole = smoothing.certify(classifier, x, generator=Streams.seeded(0, torch.arange(3)))
    alone = smoothing.certify(classifier, x[2:], generator=Streams.seeded(0, torch.tensor([2])))
    torch.testing.assert_close(whole.radius[2:], alone.radius)


def test_no_attack_gets_inside_the_radius():
    classifier = Classifier(HalfSpace(), deterministic=True)
    x = torch.rand(8, 1, 2, 2, generator=torch.Generator().manual_seed(3))
    smoothing = RandomizedSmoothing(sigma=0.25, samples=5000, passes=400)
    found = smoothing.certify(classifier, x, generator=torch.Generator().manual_seed(0))
    defended = smoothing.wrap(classifier)
    for n in (found.radius > 0).nonzero()[:, 0].tolist():
        threat = L2(epsilon=0.98 * float(found.radius[n]), box=(-9.0, 9.0))
        label = found.prediction[n : n + 1]
        attack = PGD(steps=20, early_stop=False)
        x_adv = attack.run(
            classifier, x[n : n + 1], label, threat, generator=torch.Generator().manual_seed(0)
        )
        again = smoothing.certify(classifier, x_adv, generator=torch.Generator().manual_seed(1))
        assert int(again.prediction[0]) in (int(label), ABSTAIN)
        assert defended.passes == 400


def votes_won(distance, sigma, passes):
    """Probability that a vote of the half space is won at a signed distance from its border: closed form."""
    return float(binom.sf(passes // 2, passes, norm.cdf(distance / sigma)))


@pytest.mark.parametrize("passes", [1, 10, 101])
def test_vote_certificate_approaches_the_closed_form_from_below(passes):
    classifier = Classifier(HalfSpace(), deterministic=True)
    x = torch.full((4, 1, 2, 2), 0.3)
    x[:, 0, 0, 0] = torch.tensor([0.95, 0.8, 0.65, 0.4])
    y = torch.ones(4, dtype=torch.int64)
    smoothing = RandomizedSmoothing(sigma=0.25, samples=20_000)
    for threat, reach in ((L2(epsilon=0.1), 0.1), (Linf(epsilon=0.05), 0.1), (L1(epsilon=0.1), 0.1)):
        found = smoothing.vote_certificate(
            classifier, x, y, threat, passes=passes, generator=torch.Generator().manual_seed(0)
        )
        truth = [votes_won(d - 0.5 - reach, 0.25, passes) for d in (0.95, 0.8, 0.65, 0.4)]
        assert found.alpha == 0.001
        for rate, true in zip(found.rate.tolist(), truth, strict=True):
            assert rate <= true
            assert rate == pytest.approx(true, abs=0.12)
    assert classifier.meter.judge_forwards == 3 * 4 * 20_000


def test_deployed_votes_carry_a_certificate_that_no_move_undercuts():
    deployed = RandomizedSmoothing(sigma=0.25, samples=5000, passes=11).wrap(Classifier(HalfSpace()))
    x = torch.full((200, 1, 2, 2), 0.3)
    x[:, 0, 0, 0] = 0.75
    y, threat = torch.ones(200, dtype=torch.int64), L2(epsilon=0.2)
    assert deployed.certificate is not None
    generator = torch.Generator().manual_seed(0)
    bound = deployed.certificate(deployed, x[:1], y[:1], threat, generator=generator).rate[0]
    worst = x.clone()
    worst[:, 0, 0, 0] -= 0.2  # the shortest way to the border
    seen = judge(deployed, worst, x, y, threat, draws=20, generator=generator)
    right = float(1 - seen.failure_rate.mean())  # 4,000 votes: standard error 0.8 %
    assert float(bound) - 0.02 < right
    assert right == pytest.approx(votes_won(0.05, 0.25, 11), abs=0.03)
    assert set(deployed(x, generator=generator).logits.round(decimals=6).unique().tolist()) == {0.0, 1.0}


def test_votes_have_the_gradient_of_the_softmax():
    deployed = RandomizedSmoothing(sigma=1e-6).wrap(Classifier(HalfSpace()))
    x = torch.full((1, 1, 1, 1), 0.7, requires_grad=True)
    vote = deployed(x, generator=torch.Generator().manual_seed(0)).logits[:, 1]
    grad = deployed.gradient(vote, x)
    p = torch.sigmoid(torch.tensor(2 * 0.2))
    torch.testing.assert_close(grad, (2 * p * (1 - p)).reshape(1, 1, 1, 1), rtol=1e-3, atol=0)


def test_a_certificate_belongs_to_its_network_and_goal():
    deployed = RandomizedSmoothing().wrap(Classifier(HalfSpace()))
    assert deployed.replace(passes=7).certificate is deployed.certificate
    assert SAP().wrap(deployed).certificate is None
    with pytest.raises(Unsupported, match="targeted"):
        RandomizedSmoothing().vote_certificate(
            Classifier(HalfSpace()),
            torch.zeros(1, 1, 2, 2),
            torch.zeros(1, dtype=torch.int64),
            L2(epsilon=0.1, goal="targeted"),
            passes=1,
            generator=torch.Generator(),
        )
