"""The substitute network: what it learns from, what is asked of the target, and who goes on."""

import pytest
import torch
from torch import nn

from unmask.attacks import Setting, Substitute
from unmask.attacks.base import Attack
from unmask.attacks.pgd import PGD
from unmask.attacks.substitute import _imitate, _small_network, _start_at
from unmask.classifier import Classifier
from unmask.objectives import margin_loss
from unmask.randomness import Streams
from unmask.threat import Linf

SAMPLES, ROUNDS = 5, 3


class Target:
    """A linear network far from zero, whose queries are written down."""

    def __init__(self, gap=0.0):
        rng = torch.Generator().manual_seed(0)
        self.weight, self.gap, self.asked = torch.randn(3, 8, generator=rng), gap, []

    def __call__(self, x):
        self.asked.append(x.detach().clone())
        logits = 100 + (x.flatten(1) - 0.5) @ self.weight.T
        logits[:, 0] += self.gap
        return logits


def images(n=6):
    return 0.4 + 0.2 * torch.rand(n, 2, 2, 2, generator=torch.Generator().manual_seed(1))


def attack(**options):
    given = {"samples": SAMPLES, "rounds": ROUNDS, "epochs": 3, "width": 4, "early_stop": False}
    return Substitute(**given | options)


def run(one, target, x, y, epsilon=0.2, **threat):
    streams = Streams.seeded(0, torch.arange(len(x)))
    classifier = Classifier(target, deterministic=True)
    return one.run(classifier, x, y, Linf(epsilon=epsilon, **threat), generator=streams)


def test_the_image_then_random_points_then_one_of_each_attack_and_the_worst_is_kept():
    target, x, y = Target(gap=3.0), images(), torch.zeros(6, dtype=torch.int64)
    found = run(attack(), target, x, y)
    assert len(target.asked) == 1 + SAMPLES + ROUNDS
    assert torch.equal(target.asked[0], x)
    assert not torch.equal(target.asked[1], target.asked[2])
    for points in target.asked[1 : 1 + SAMPLES]:
        assert 0 < float((points - x).abs().max()) <= 0.2 + 1e-6
    loss = torch.stack([target(points)[:, 1:].amax(1) - target(points)[:, 0] for points in target.asked[:9]])
    best = torch.stack(target.asked[:9])[loss.argmax(0), torch.arange(6)]
    torch.testing.assert_close(found, best)


def test_who_is_fooled_takes_no_part_in_later_attacks():
    target, x = Target(), images(20)
    y = target(x).argmax(1)
    target.asked.clear()
    found = run(attack(early_stop=True, rounds=5), target, x, y, epsilon=0.06)
    sizes = [len(points) for points in target.asked]
    assert sizes[: 1 + SAMPLES] == [20] * (1 + SAMPLES)
    left = torch.ones(20, dtype=torch.bool)
    for number, points in enumerate(list(target.asked)):
        if number > SAMPLES:
            assert len(points) == int(left.sum())
        rows = left.nonzero()[:, 0] if number > SAMPLES else torch.arange(20)
        wrong = target(points).argmax(1) != y[rows]
        left[rows[wrong]] = False
    assert 0 < int(left.sum()) < 20
    assert sizes[-1] < sizes[0]
    assert ((target(found).argmax(1) != y) == ~left).all()


def test_it_ends_where_everybody_is_fooled():
    target, x = Target(), images()
    run(attack(early_stop=True), target, x, (target(x).argmax(1) + 1) % 3)
    assert len(target.asked) == 1 + 1 + SAMPLES  # one of them here


def test_it_trains_on_what_earlier_attacks_found_in_the_units_of_what_was_answered(monkeypatch):
    """The spread of the first answers is the unit; mean answers are where the last bias starts."""
    target, x, y = Target(gap=3.0), images(), torch.zeros(6, dtype=torch.int64)
    trained = []

    def watched(network, points, answers, epochs, shuffle):
        trained.append((points.clone(), answers.clone(), epochs, network[-1].bias.detach().clone()))
        _imitate(network, points, answers, epochs, shuffle)

    monkeypatch.setattr("unmask.attacks.substitute._imitate", watched)
    run(attack(), target, x, y)
    asked = list(target.asked)
    first = torch.cat([target(points) for points in asked[: 1 + SAMPLES]])
    spread = first.std(0).max()
    torch.testing.assert_close(trained[0][3], first.mean(0) / spread)
    assert len(trained) == ROUNDS
    for number, (points, answers, epochs, _) in enumerate(trained):
        known = torch.cat(asked[: 1 + SAMPLES + number])
        torch.testing.assert_close(points, known)
        torch.testing.assert_close(answers, target(known) / spread, rtol=1e-4, atol=1e-3)
        assert epochs == 3


def test_answers_that_are_not_finite_are_not_learnt_from():
    class Holes(Target):
        def __call__(self, x):
            logits = super().__call__(x)
            return torch.where((x.flatten(1)[:, :1] > 0.5) & (x.flatten(1)[:, 1:2] > 0.5), torch.nan, logits)

    target, x, y = Holes(gap=3.0), images(), torch.zeros(6, dtype=torch.int64)
    found = run(attack(), target, x, y)
    assert len(target.asked) == 1 + SAMPLES + ROUNDS
    assert torch.isfinite(target(found)).all()


def test_a_network_that_answers_nothing_finite_is_left_at_once():
    asked, x = [], images()

    def silent(z):
        asked.append(len(z))
        return torch.full((len(z), 3), torch.nan)

    found = run(attack(), silent, x, torch.zeros(6, dtype=torch.int64))
    assert torch.equal(found, x)
    assert asked == [6] * (1 + SAMPLES)


def test_the_inner_attack_meets_the_small_network_and_new_random_numbers_each_round():
    seen = []

    class Watching(Attack):
        def run(self, classifier, x, y, threat, *, generator):
            seen.append((type(classifier.network), classifier.deterministic, generator.uniform(2), y))
            return x

    target, x, y = Target(gap=3.0), images(), torch.arange(6) % 2
    run(attack(inner=Watching()), target, x, y)
    assert [kind for kind, *_ in seen] == [nn.Sequential] * ROUNDS
    assert all(deterministic for _, deterministic, *_ in seen)
    assert not torch.equal(seen[0][2], seen[1][2])
    assert not torch.equal(seen[1][2], seen[2][2])
    assert all(torch.equal(labels, y) for *_, labels in seen)


@pytest.mark.parametrize(
    ("shape", "first"),
    [((3, 8, 6), nn.Conv2d), ((3, 3, 8), nn.Flatten), ((3, 8, 3), nn.Flatten), ((7,), nn.Flatten)],
)
def test_images_are_learnt_by_convolutions_and_what_is_smaller_by_a_hidden_layer(shape, first):
    x = torch.rand(2, *shape)
    network = _small_network(x, 5, 6)
    assert isinstance(network[0], first)
    assert network(x).shape == (2, 5)
    if first is nn.Conv2d:
        assert [layer.weight.shape[0] for layer in network if isinstance(layer, nn.Conv2d)] == [6, 12]
        assert network[-1].in_features == 12 * 2 * 2
    else:
        assert network[1].out_features == 12


def test_it_starts_at_the_mean_answer_in_units_of_the_widest_spread():
    network = _small_network(torch.rand(2, 7), 3, 4)
    answers = torch.tensor([[1.0, 10.0, 5.0], [3.0, 10.0, 9.0], [5.0, 10.0, 1.0]])
    assert float(_start_at(network, answers)) == pytest.approx(4.0)
    torch.testing.assert_close(network[-1].bias, torch.tensor([3.0, 10.0, 5.0]) / 4)


@pytest.mark.parametrize("labels", [False, True])
def test_logits_are_imitated_as_they_are_and_labels_as_classes(labels):
    """After enough epochs a linear map is known to a small error, and labels are told apart far beyond their size."""
    torch.manual_seed(0)
    points = torch.rand(256, 6)
    answers = points @ torch.randn(6, 3) - 0.5
    if labels:
        answers = torch.nn.functional.one_hot(answers.argmax(1), 3).float()
    network = _small_network(points, 3, 32)
    _imitate(network, points, answers, 100, torch.Generator().manual_seed(0))
    said = network(points).detach()
    if labels:
        assert (said.argmax(1) == answers.argmax(1)).float().mean() > 0.95
        assert float((said.amax(1) - said.amin(1)).median()) > 3  # squared errors would end near one
    else:
        assert float((said - answers).square().mean()) < 0.02 * float(answers.var())
    assert all(p.grad is None for p in network.parameters())


def test_it_fits_itself_and_says_what_it_is():
    one = Substitute()
    assert one.fit(Setting(random=True)) == Substitute(early_stop=False)
    assert one.fit(Setting()) == one
    assert one.describe() == "substitute network, transferred"
    assert Substitute(samples=3, rounds=2).cost(4).forwards == 6
    assert one.inner == PGD(steps=20, rel_step_size=0.125, objective=margin_loss, early_stop=False)
