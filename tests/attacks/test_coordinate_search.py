"""Coordinate search against enumeration on score cards: networks that are a sum over the features, flat and crooked."""

import itertools

import pytest
import torch
from tests.attacks.conftest import threat_of

from unmask.attacks import CoordinateSearch, Setting, Square
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.judge import fooled
from unmask.objectives import Undetected
from unmask.randomness import Streams
from unmask.threat import L0, Linf

FEATURES, BINS = 6, 20


def card(features=FEATURES, seed=0):
    """Points of each bin of each feature, drawn at random: neither monotone nor smooth. Class 0 has more than zero."""
    return torch.randn(features, BINS, generator=torch.Generator().manual_seed(seed))


def scored(points, pairs=0.0):
    """The network of a card; `pairs` weighs what two neighbouring features give together."""

    def network(x):
        bins = (x * BINS).long().clamp(0, BINS - 1)
        each = points[torch.arange(points.shape[0]), bins]
        total = each.sum(1) + pairs * (each[:, 1:] * each[:, :-1]).sum(1)
        return torch.stack([total, torch.zeros_like(total)], 1)

    return network


def problem(examples=30, features=FEATURES, seed=0, pairs=0.0):
    points = card(features, seed)
    x = torch.rand(examples, features, generator=torch.Generator().manual_seed(1))
    network = scored(points, pairs)
    return Classifier(network, deterministic=True), x, network(x).argmax(1), points


def reachable(points, x, radius):
    """Of each feature of one input the points that it can be given."""
    return [
        points[
            i, int(max(float(x[i]) - r, 0) * BINS) : min(int(min(float(x[i]) + r, 1) * BINS), BINS - 1) + 1
        ]
        for i, r in enumerate(radius)
    ]


def worst(points, x, y, radius):
    """Whether one input of class `y` can be brought to the other: every feature at its worst bin, by enumeration."""
    sign = 1.0 if y == 0 else -1.0
    total = sum(float((sign * some).min()) for some in reachable(points, x, radius))
    return total < 0 or (total == 0 and y == 1)


@pytest.mark.parametrize("radius", [0.03, [0.07, 0.0, 0.04, 0.02, 0.0, 0.07]])
def test_a_sum_over_features_is_solved_exactly(radius):
    classifier, x, y, points = problem()
    radii = radius if isinstance(radius, list) else [radius] * FEATURES
    expected = torch.tensor([worst(points, *one, radii) for one in zip(x, y, strict=True)])
    assert 0.1 < expected.double().mean() < 0.9
    attack, threat = CoordinateSearch(queries=2000, grid=64), Linf(epsilon=radius)
    x_adv = attack.run(classifier, x, y, threat, generator=torch.Generator())
    assert torch.equal(fooled(classifier(x_adv, generator=Streams.seeded(0, y)), y, threat), expected)


def test_what_is_no_sum_is_searched_from_where_the_sum_ends():
    classifier, x, y, _ = problem(15, pairs=0.5)
    threat, broken = Linf(epsilon=0.03), {}
    for attack in (CoordinateSearch(), Square(queries=1000)):
        x_adv = attack.run(classifier, x, y, threat, generator=torch.Generator().manual_seed(0))
        won = fooled(classifier(x_adv, generator=Streams.seeded(0, y)), y, threat)
        broken[type(attack)] = int(won.sum())
    assert broken[CoordinateSearch] >= broken[Square]
    best = [0 for _ in y]
    for n, (one, label) in enumerate(zip(x, y, strict=True)):
        steps = [
            [float(v) for v in (one[i] + torch.linspace(-0.03, 0.03, 5)).clamp(0, 1)] for i in range(FEATURES)
        ]
        corners = torch.tensor(list(itertools.product(*steps)))
        best[n] = int((classifier(corners, generator=None).logits.argmax(1) != label).any())
    assert broken[CoordinateSearch] >= 0.85 * sum(best)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_budget_that_one_feature_leaves_goes_to_others(norm):
    """Three features give way at a step of 0.1 each, and no one or two of them are enough."""

    def network(x):
        given = ((x[:, :3] - 0.5).abs() > 0.1).sum(1).double()
        return torch.stack([torch.full_like(given, 2.5), given], 1)

    x, y = torch.full((2, 5), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    classifier = Classifier(network, deterministic=True)
    needed = {"l2": 0.1 * 3**0.5, "l1": 0.3}[norm]
    for share, expected in ((1.15, True), (0.99, False)):
        threat = threat_of(norm, share * needed)
        attack = CoordinateSearch(queries=4000, grid=64)
        x_adv = attack.run(classifier, x, y, threat, generator=torch.Generator())
        assert bool((network(x_adv).argmax(1) != y).all()) is expected


def test_of_equal_values_the_least_change_is_kept():
    classifier, x, y, _ = problem()
    flat = Classifier(lambda x: classifier.network(x) * 0 + torch.tensor([1.0, 0.0]), deterministic=True)
    x_adv = CoordinateSearch().run(flat, x, 0 * y, Linf(epsilon=0.1), generator=torch.Generator())
    assert torch.equal(x_adv, x)


def test_an_example_that_settles_is_asked_about_no_more():
    classifier, x, y, _ = problem(8)
    CoordinateSearch(queries=10**6).run(classifier, x, y, Linf(epsilon=0.02), generator=torch.Generator())
    assert classifier.meter.forwards < 8 * 6 * FEATURES * 18


def test_plans_leave_it_out_but_for_vectors_of_few_features():
    attack = CoordinateSearch()
    assert attack.fit(Setting(shape=(30,))) == attack
    assert [attack.fit(Setting(shape=s)) for s in [(257,), (1, 8, 8), (2, 64), ()]] == [None] * 4
    fitted = attack.fit(Setting(shape=(30,), random=True, detector=True))
    assert (fitted.draws, fitted.early_stop, type(fitted.objective)) == (4, False, Undetected)


def test_few_pixels_are_for_another():
    classifier, x, y, _ = problem(2)
    with pytest.raises(Unsupported):
        CoordinateSearch().run(classifier, x, y, L0(epsilon=1), generator=torch.Generator())


@pytest.mark.parametrize("logits", [torch.float64, torch.float16])
def test_logits_may_have_a_precision_of_their_own(logits):
    classifier, x, y, _ = problem(4)
    other = Classifier(lambda x: classifier.network(x).to(logits), deterministic=True)
    x_adv = CoordinateSearch().run(other, x, y, Linf(epsilon=0.1), generator=torch.Generator())
    assert x_adv.dtype == x.dtype
    assert (other(x_adv, generator=None).logits.argmax(1) != y).any()
