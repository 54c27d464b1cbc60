"""Coordinate search query by query: each feature alone, the best together, then sweeps; written a second time."""

import pytest
import torch
from tests.attacks.curved import Curved, curved, project
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import CoordinateSearch
from unmask.errors import Unsupported
from unmask.judge import fooled
from unmask.objectives import margin_loss
from unmask.threat import Linf, threat_model

EPSILON = {"linf": 0.1, "l2": 0.3, "l1": 0.6}


class Search:
    """One image. `path`: the points of each look, in order; `fools`: the first look that has one that does."""

    def __init__(self, net, n, norm, queries, grid=16, radii=None, epsilon=None):
        self.x, self.norm, self.epsilon = net.x[n], norm, epsilon or EPSILON[norm]
        self.radii = (
            torch.full((self.x.numel(),), self.epsilon, dtype=torch.float64) if radii is None else radii
        )
        self.loss, self.path, self.left = margin_loss_of(net, int(net.y[n])), [], queries
        self.fools, self.won, self.sweeps = None, None, 0
        features = self.x.numel()
        half = min(grid, max(queries // (2 * features) - 1, 2)) // 2
        shares = [sign * k / half for k in range(1, half + 1) for sign in (1, -1)]
        gains, alone = [-torch.inf] * features, self.x.flatten().clone()
        for feature in range(features):
            if self.left <= len(shares):
                break
            best, _, gains[feature] = self.look([self.x, *self.elsewhere(self.x, feature, shares)])
            alone[feature] = best.flatten()[feature]
        order = sorted(range(features), key=lambda k: -gains[k])
        points = []
        for count in range(1, min(features, self.left) + 1):
            point = self.x.flatten().clone()
            for feature in order[:count]:
                if gains[feature] > 0:
                    point[feature] = alone[feature]
            points.append(self.allowed(point))
        self.end = self.look(points)[0] if points else self.x
        while True:
            order, moved = sorted(range(features), key=lambda k: -gains[k]), False
            self.sweeps += 1
            for feature in order:
                if self.left <= len(shares) + 1:
                    return
                points = [self.end, *self.elsewhere(self.end, feature, [0.0, *shares])]
                self.end, chosen, gains[feature] = self.look(points)
                moved = moved or chosen > 0
            if not moved:
                return

    def allowed(self, point):
        point = point.reshape(self.x.shape)
        if self.norm == "linf":
            low, high = self.x.flatten() - self.radii, self.x.flatten() + self.radii
            return point.flatten().clamp(low, high).clamp(0, 1).reshape(self.x.shape)
        return project(point, self.x, self.norm, self.epsilon)

    def elsewhere(self, stands, feature, shares):
        """One feature at shares of the way to either end of its range around the image."""
        here, points = float(self.x.flatten()[feature]), []
        up, down = (
            min(here + float(self.radii[feature]), 1) - here,
            here - max(here - float(self.radii[feature]), 0),
        )
        for share in shares:
            point = stands.flatten().clone()
            point[feature] = here + share * (up if share > 0 else down)
            points.append(self.allowed(point))
        return points

    def look(self, points):
        """The first of the best, which one it is, and what it has over the first."""
        self.path.append(torch.stack(points))
        self.left -= len(points)
        values = [float(self.loss(point)) for point in points]
        chosen = max(range(len(values)), key=lambda k: values[k])
        if max(values) > 0 and self.fools is None:
            self.fools, self.won = len(self.path) - 1, points[chosen]
        return points[chosen], chosen, values[chosen] - values[0]


def problem(sharpness=2.0):
    return curved(sharpness=sharpness, seed=2)


def looks_of(net, ones):
    """Of each call the points of each example that is in it."""
    for look, asked in enumerate(net.asked):
        there = [n for n, one in ones.items() if look < len(one.path)]
        yield look, there, asked.reshape(len(there), -1, *net.x.shape[1:])


@pytest.mark.parametrize(("norm", "queries", "grid"), [
    ("linf", 700, 16), ("l2", 700, 16), ("l1", 700, 16), ("linf", 700, 4),
    ("linf", 120, 16), ("linf", 51, 16), ("linf", 40, 16),  # no query is left for a sweep, nor for all features
])  # fmt: skip
def test_every_query_is_that_of_the_search(norm, queries, grid):
    net = problem()
    attack = CoordinateSearch(queries=queries, grid=grid, early_stop=False)
    threat = threat_model(norm, EPSILON[norm])
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    ones = {n: Search(net, n, norm, queries, grid) for n in range(len(net.x))}
    assert len(net.asked) == max(len(one.path) for one in ones.values())
    for look, there, points in looks_of(net, ones):
        for row, n in enumerate(there):
            torch.testing.assert_close(points[row], ones[n].path[look], rtol=0, atol=1e-9)
    for n, one in ones.items():
        torch.testing.assert_close(found[n], one.end, rtol=0, atol=1e-6)
        assert sum(len(points) for points in one.path) <= queries
    if queries == 700:
        assert max(one.sweeps for one in ones.values()) > 1


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_who_is_fooled_leaves_with_its_best_point_and_the_others_go_on(norm):
    """At the look at one feature, at that of several together, and in a sweep."""
    net, epsilon = curved(sharpness=6.0, seed=3), EPSILON[norm] / 2
    attack, threat = CoordinateSearch(queries=700), threat_model(norm, epsilon)
    ones = {n: Search(net, n, norm, 700, epsilon=epsilon) for n in range(len(net.x))}
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    left = list(ones)
    for look, asked in enumerate(net.asked):
        left = [n for n in left if look < len(ones[n].path)]
        points = asked.reshape(len(left), -1, *net.x.shape[1:])
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], ones[n].path[look], rtol=0, atol=1e-9)
            if ones[n].fools == look:
                torch.testing.assert_close(found[n], ones[n].won, rtol=0, atol=1e-6)
                left.remove(n)
    fooling = {one.fools for one in ones.values()}
    assert None in fooling
    fooling.remove(None)
    assert min(fooling) < 16 < max(fooling)
    assert 16 in fooling
    for n, one in ones.items():
        if one.fools is None:
            torch.testing.assert_close(found[n], one.end, rtol=0, atol=1e-6)


def test_radii_of_each_feature_are_the_ends_of_its_own_range():
    net = problem()
    vectors = Curved(net.layers, net.x.flatten(1), net.y)
    radii = [0.1, 0.0, 0.05, 0.2] * 4
    attack = CoordinateSearch(queries=700, early_stop=False)
    found = attack.run(
        vectors.classifier(), vectors.x, vectors.y, Linf(epsilon=radii), generator=vectors.streams()
    )
    for n in range(len(net.x)):
        one = Search(vectors, n, "linf", 700, radii=torch.tensor(radii, dtype=torch.float64))
        torch.testing.assert_close(found[n], one.end, rtol=0, atol=1e-6)


def test_several_draws_are_averaged_and_one_that_fools_is_enough():
    """The sum of two draws chooses; with early stop any draw that fools ends the search."""
    x, y = torch.full((1, 3), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    calls = []

    class Alternating(Curved):
        def classifier(self):
            def network(z):
                calls.append(len(z))
                sign = 1 if len(calls) % 2 else -1
                # The draws differ by more than the points do, and their mean grows with the first feature alone.
                lead = z[:, 0] - 2 + sign * 1.45
                return torch.stack([torch.zeros_like(lead), lead], 1)

            return super().classifier().replace(network=network)

    net = Alternating(torch.nn.Identity(), x, y)
    threat = Linf(epsilon=0.1)
    found = CoordinateSearch(queries=400, draws=2, early_stop=False).run(
        net.classifier(), x, y, threat, generator=net.streams()
    )
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.5, 0.5]], dtype=torch.float64))
    assert sum(calls) <= 400
    calls.clear()
    found = CoordinateSearch(queries=400, draws=2).run(
        net.classifier(), x, y, threat, generator=net.streams()
    )
    assert len(calls) == 2  # the first look
    assert float(found[0, 0]) > 0.55


def test_it_says_what_it_is_and_who_cannot_count_pixels():
    assert CoordinateSearch(queries=7).describe() == "coordinate search-7"
    assert CoordinateSearch(queries=7).cost(3).forwards == 7
    assert CoordinateSearch().objective is margin_loss
    net = problem()
    with pytest.raises(Unsupported, match=r"^`CoordinateSearch` "):
        CoordinateSearch().run(net.classifier(), net.x, net.y, threat_model("l0", 1), generator=net.streams())


def test_a_goal_that_names_the_class_is_reached():
    net = problem(6.0)
    target = torch.tensor([int(net.logits(image).argsort()[-2]) for image in net.x])
    threat = threat_model("linf", 0.3, goal="targeted")
    found = CoordinateSearch().run(net.classifier(), net.x, target, threat, generator=net.streams())
    assert fooled(net.classifier()(found, generator=net.streams()), target, threat).float().mean() > 0.4
