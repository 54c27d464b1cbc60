"""HopSkipJump query by query against algorithm 2 of Chen, Jordan & Wainwright 2020, one image at a time."""

import math

import pytest
import torch
from tests.attacks.curved import SIDE, Curved, curved
from torch import nn

from unmask.attacks import HopSkipJump, Setting
from unmask.errors import Unsupported
from unmask.threat import L2, Linf

QUERIES, SAMPLES = 400, 20


class Slab(nn.Module):
    """Wrong between two planes only, so that a long step comes out behind."""

    def forward(self, x):
        along = (x - 0.5).flatten(1).sum(1) / SIDE
        return torch.stack([torch.full_like(along, 0.5), torch.exp(-((along - 1.5) / 0.4).square())], 1)


def slab() -> Curved:
    x = 0.4 + 0.2 * torch.rand(4, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    return Curved(Slab(), x, torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("problem", [curved, slab])
@pytest.mark.parametrize("n", [0, 1, 3])
def test_every_query_is_that_of_the_algorithm(n, problem):
    net = problem()
    box = (-4.0, 4.0)  # far enough that no probe meets it
    x, y = net.x[n : n + 1], net.y[n : n + 1]
    attack = HopSkipJump(queries=QUERIES, initial_samples=SAMPLES, early_stop=False)
    found = attack.run(net.classifier(), x, y, L2(epsilon=30.0, box=box), generator=net.streams()[n : n + 1])
    image, label = x[0], int(y[0])
    asked = iter([point for batch in net.asked for point in batch])

    def wrong(point):
        return int(net.logits(point).argmax()) != label

    def near(ours, theirs):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)

    current, tries = next(asked), 1  # random images until one fools
    while not wrong(current):
        current, tries = next(asked), tries + 1
    used, iteration, reached, halved = 50, 0, [], 0  # of the queries: fifty tries are set aside
    while used + 10 <= QUERIES:
        low, high = 0.0, 1.0  # back to the boundary
        for _ in range(10):
            middle = (low + high) / 2
            point = next(asked)
            near(point, image + middle * (current - image))
            low, high = (low, middle) if wrong(point) else (middle, high)
        current, iteration = image + high * (current - image), iteration + 1
        reached.append((float((current - image).norm()), current))
        used += 10
        count = min(round(SAMPLES * math.sqrt(iteration)), QUERIES - used - 20)
        if count < 1:
            break
        distance = reached[-1][0]
        probe = 0.1 if iteration == 1 else distance / image.numel()
        points = [next(asked) for _ in range(count)]
        directions = torch.stack([(point - current) / probe for point in points])
        torch.testing.assert_close(
            directions.flatten(1).norm(dim=1), torch.ones(count).double(), rtol=0, atol=1e-5
        )
        assert count == 1 or not torch.allclose(directions[0], directions[1], atol=1e-3)
        side = torch.tensor([1.0 if wrong(point) else -1.0 for point in points]).double()
        if side.mean().abs() < 1:  # equation 16; with all on one side the plain mean
            side = side - side.mean()
        normal = (side[:, None, None, None] * directions).sum(0)
        normal /= normal.norm()
        step = distance / math.sqrt(iteration)  # geometric: halved until the point fools
        for _ in range(10):
            point = next(asked)
            torch.testing.assert_close(point, (current + step * normal).clamp(*box), rtol=0, atol=1e-6)
            if wrong(point):
                current = point
                break
            step, halved = step / 2, halved + 1
        used += count + 10
    assert next(asked, None) is None
    assert iteration > 4
    assert halved > 0 or problem is curved
    near(found[0], min(reached, key=lambda pair: pair[0])[1].clamp(*box))
    assert min(reached)[0] < 0.7 * reached[0][0]


def plane(z):
    """Class 1 beyond a plane, class 0 before it, class 2 nowhere."""
    along = (z - 0.5).flatten(1).sum(1) / SIDE
    return torch.stack([torch.zeros_like(along), along - 0.2, torch.full_like(along, -9.0)], 1)


def planes(n):
    x = 0.3 + 0.1 * torch.rand(n, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).double()
    return Curved(plane, x, torch.zeros(n, dtype=torch.int64))


def test_who_reaches_the_ball_leaves_at_once_and_the_others_walk_on():
    """On a plane the first way back ends at a known place: the image nearest to it leaves first."""
    net = planes(4)
    found = HopSkipJump(queries=300, initial_samples=10).run(
        net.classifier(), net.x, net.y, L2(epsilon=1.2), generator=net.streams()
    )
    whole = HopSkipJump(queries=300, initial_samples=10, early_stop=False)
    long = planes(4)
    whole.run(long.classifier(), long.x, long.y, L2(epsilon=1.2), generator=long.streams())
    spent = [sum(len(points) for points in one.asked) for one in (net, long)]
    assert spent[0] < spent[1]
    wrong = plane(found).argmax(1) != net.y
    distance = (found - net.x).flatten(1).norm(dim=1)
    assert (wrong & (distance <= 1.2)).sum() >= 1
    # Once inside, no query is about that image any more: with all inside the attack ends.
    wide = planes(4)
    first = HopSkipJump(queries=300).run(
        wide.classifier(), wide.x, wide.y, L2(epsilon=9.0), generator=wide.streams()
    )
    tries = next(k for k in range(50) if len(wide.asked[k]) == 4 and k and len(wide.asked[k - 1]) < 4)
    assert len(wide.asked) == tries + 10
    assert (plane(first).argmax(1) == 1).all()


def test_an_image_without_a_start_stays_and_the_others_walk_on():
    net = planes(2)
    target, threat = torch.tensor([1, 2]), L2(epsilon=9.0, goal="targeted")
    found = HopSkipJump(queries=70, initial_samples=5, early_stop=False).run(
        net.classifier(), net.x, target, threat, generator=net.streams()
    )
    assert torch.equal(found[1], net.x[1])
    assert int(plane(found[:1]).argmax(1)) == 1
    sizes = [len(points) for points in net.asked[:50]]
    assert sizes[0] == 2
    assert sizes[-1] == 1  # the one that found nothing tries fifty times
    assert all(len(points) in (1, 2, 5) for points in net.asked)


@pytest.mark.parametrize(("queries", "tries"), [(20, 10), (9, 1), (55, 45), (200, 50)])
def test_so_many_random_images_are_tried(queries, tries):
    net = planes(1)
    found = HopSkipJump(queries=queries).run(
        net.classifier(), net.x, net.y + 2, L2(epsilon=9.0, goal="targeted"), generator=net.streams()
    )
    assert torch.equal(found, net.x)
    assert len(net.asked) == tries


@pytest.mark.parametrize("queries", [60, 75, 90, 140, 333])
def test_never_more_queries_than_are_given(queries):
    """Fifty are set aside for the start; a way back and half steps take ten each, and what is left are samples."""
    net = planes(1)
    HopSkipJump(queries=queries, initial_samples=30, early_stop=False).run(
        net.classifier(), net.x, net.y, L2(epsilon=9.0), generator=net.streams()
    )
    assert sum(len(points) for points in net.asked) <= queries


def test_it_walks_in_units_of_the_radii():
    """A pixel with radius zero never moves, and one with a third of the radius moves less."""
    net = planes(1)
    vectors = Curved(plane, net.x.flatten(1), net.y)
    radii = [0.0] + [3.0] * 7 + [1.0] * 8
    HopSkipJump(queries=300, initial_samples=20, early_stop=False).run(
        vectors.classifier(), vectors.x, vectors.y, L2(epsilon=radii), generator=vectors.streams()
    )
    asked = torch.cat(vectors.asked)
    assert bool((asked[:, 0] == vectors.x[0, 0]).all())
    moved = torch.cat([b - b.mean(0) for b in vectors.asked if len(b) > 1])
    wide, narrow = moved[:, 1:8].std(), moved[:, 8:].std()
    assert 2 < float(wide / narrow) < 4.5


def test_it_needs_one_boundary_and_says_what_it_is():
    assert HopSkipJump(queries=7).describe() == "HopSkipJump-7 (labels only)"
    assert HopSkipJump(queries=7).cost(4).forwards == 7
    assert HopSkipJump().fit(Setting(random=True)) is None
    assert HopSkipJump(queries=7).fit(Setting()) == HopSkipJump(queries=7)
    net = planes(1)
    with pytest.raises(Unsupported, match="under L2 or L1, not Linf; use `RayS`"):
        HopSkipJump().run(net.classifier(), net.x, net.y, Linf(epsilon=0.1), generator=net.streams())
