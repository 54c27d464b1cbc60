"""What counts as a success, and what never does."""

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.judge import fooled, judge
from unmask.threat import Linf
from unmask.types import Outputs

NAN, INF = torch.nan, torch.inf


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_only_finite_wrong_and_accepted_counts():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [NAN, 1.0], [0.0, INF], [0.0, 1.0], [0.0, 1.0]])
    score = torch.tensor([-1.0, -1.0, -1.0, -1.0, 0.1, 0.0])
    y = torch.zeros(6, dtype=torch.int64)
    untargeted, targeted = Linf(epsilon=0.1), Linf(epsilon=0.1, goal="targeted")
    assert fooled(Outputs(logits, score), y, untargeted).tolist() == [False, True, False, False, False, True]
    assert fooled(Outputs(logits, score), y, targeted).tolist() == [True, False, False, False, False, False]


def test_a_point_outside_ball_or_box_never_counts():
    x = torch.tensor([[0.5], [0.5], [0.95], [0.5]])
    x_adv = torch.tensor([[0.55], [0.65], [1.01], [NAN]])
    always_wrong = Classifier(lambda x: torch.tensor([[0.0, 1.0]]).expand(len(x), 2), deterministic=True)
    y = torch.zeros(4, dtype=torch.int64)
    seen = judge(always_wrong, x_adv, x, y, Linf(epsilon=0.1), generator=rng())
    assert seen.allowed.tolist() == [True, False, False, False]
    assert seen.failure_rate.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_a_random_classifier_keeps_its_accuracy_under_no_attack():
    """91 % accurate whatever the input; scored by single lucky draws it would look far worse."""

    def network(x):
        wrong = torch.rand(len(x)) < 0.09
        return torch.stack([~wrong, wrong], 1).float()

    x, y = torch.zeros(2000, 1), torch.zeros(2000, dtype=torch.int64)
    seen = judge(Classifier(network), x, x, y, Linf(epsilon=1e-9), draws=20, generator=rng())
    assert seen.failure_rate.mean().item() == pytest.approx(0.09, abs=0.005)


def test_the_mean_over_the_claimed_passes_decides():
    noisy = Classifier(lambda x: torch.randn(len(x), 2) + torch.tensor([1.0, 0.0]), passes=100)
    x, y = torch.zeros(200, 1), torch.zeros(200, dtype=torch.int64)
    assert judge(noisy, x, x, y, Linf(epsilon=0.1), generator=rng()).failure_rate.sum() == 0
    assert (
        judge(noisy.replace(passes=1), x, x, y, Linf(epsilon=0.1), generator=rng()).failure_rate.mean() > 0.1
    )


def test_judging_is_metered_apart_and_once_where_nothing_is_random():
    classifier = Classifier(lambda x: x, passes=3)
    x, y = torch.rand(5, 2), torch.zeros(5, dtype=torch.int64)
    judge(classifier, x, x, y, Linf(epsilon=0.1), draws=4, generator=rng())
    assert (classifier.meter.forwards, classifier.meter.judge_forwards) == (0, 60)
    sure = Classifier(lambda x: x, deterministic=True)
    judge(sure, x, x, y, Linf(epsilon=0.1), draws=4, generator=rng())
    assert sure.meter.judge_forwards == 5


def said(*rounds):
    """A network that says these logits, one round after the other, whatever it is asked; and how often it was."""
    calls = []

    def network(x):
        calls.append(len(x))
        return torch.tensor(rounds[len(calls) - 1])

    return Classifier(network), calls


def test_all_that_the_judge_saw_is_over_all_draws_and_the_prediction_of_the_last():
    first = [[3.0, 0.0, 1.0], [0.0, 4.0, 0.0], [NAN, 0.0, 0.0]]
    second = [[0.0, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 0.0, 3.0]]
    classifier, calls = said(first, second)
    x, y = torch.full((3, 1), 0.5), torch.zeros(3, dtype=torch.int64)
    seen = judge(classifier, x, x, y, Linf(epsilon=0.1), draws=2, generator=rng())
    assert calls == [3, 3]
    assert seen.failure_rate.tolist() == [0.5, 1.0, 0.5]
    assert seen.margin_loss[:2].tolist() == [(-2 + 1) / 2, (4 + 2) / 2]
    assert seen.prediction.tolist() == [1, 1, 2]
    assert seen.finite.tolist() == [True, True, False]
    assert seen.allowed.tolist() == [True, True, True]


def test_one_draw_unless_more_are_asked_for_and_the_loss_of_a_target_pulls_towards_it():
    classifier, calls = said([[3.0, 0.0, 1.0], [0.0, 4.0, 0.0]])
    x, y = torch.full((2, 1), 0.5), torch.zeros(2, dtype=torch.int64)
    seen = judge(classifier, x, x, y, Linf(epsilon=0.1, goal="targeted"), generator=rng())
    assert calls == [2]
    assert seen.margin_loss.tolist() == [2.0, -4.0]
    assert seen.failure_rate.tolist() == [1.0, 0.0]


class Coin(nn.Module):
    """Wrong with probability one half: for a whole batch at once, or for each example by itself."""

    def __init__(self, together):
        super().__init__()
        self.together = together

    def forward(self, x):
        heads = torch.rand(1 if self.together else len(x)) < 0.5
        right = heads.expand(len(x)).float()[:, None]
        return torch.cat([right, 1 - right], 1)


@pytest.mark.parametrize(("together", "variance"), [(True, 40 * 40 / 4), (False, 40 / 4)])
def test_what_examples_share_of_their_draws_sums_to_the_variance_of_how_many_fail(together, variance):
    x, y = torch.rand(40, 4), torch.zeros(40, dtype=torch.int64)
    classifier = Classifier(Coin(together), deterministic=False)
    seen = judge(
        classifier, x, x, y, Linf(epsilon=0.1), draws=400, generator=torch.Generator().manual_seed(0)
    )
    assert float(seen.shared.sum()) == pytest.approx(variance, rel=0.2)


def test_one_draw_shares_nothing():
    x, y = torch.rand(4, 4), torch.zeros(4, dtype=torch.int64)
    seen = judge(
        Classifier(Coin(True), deterministic=True), x, x, y, Linf(epsilon=0.1), generator=torch.Generator()
    )
    assert seen.shared.tolist() == [0] * 4
