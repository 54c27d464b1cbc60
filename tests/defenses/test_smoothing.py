"""The certificate beside the one case where the truth is known: a linear network under Gaussian noise."""

import pytest
import torch
from scipy.stats import binomtest, norm
from torch import nn

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.defenses import RandomizedSmoothing
from unmask.defenses.smoothing import ABSTAIN, certified_radius
from unmask.threat import L2


class HalfSpace(nn.Module):
    """Class 1 where the first pixel is above one half: noise moves the border nowhere, so the radius is exact."""

    def forward(self, x):
        first = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-first, first], 1)


@pytest.mark.parametrize("votes", [501, 700, 990, 1000])
def test_bound_is_clopper_and_pearsons(votes):
    low = binomtest(votes, 1000, alternative="greater").proportion_ci(0.999, method="exact").low
    expected = 0.25 * norm.ppf(low) if low > 0.5 else 0.0
    assert certified_radius(votes, 1000, 0.25, 0.001) == pytest.approx(expected, rel=1e-9, abs=1e-12)


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
