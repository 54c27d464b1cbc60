"""Sparse-RS query by query against algorithm 2 and section 4.2 of Croce et al. 2022, given the same random numbers."""

import math

import pytest
import torch
from tests.attacks.curved import SIDE, Curved, curved, follows
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import SparseRS
from unmask.attacks.sparse_moves import PatchMoves
from unmask.errors import Unsupported
from unmask.randomness import Streams
from unmask.threat import Patch, threat_model

QUERIES, CHANNELS = 90, 2
BUDGET = {"l0": 5, "l0-elements": 6, "patch": 2}


def share_at(query, queries, alpha=0.3):
    """Appendix A: of 10,000 queries, alpha over 2, 4, 5, 6, 8, 10, 12, 15, 20 after these."""
    divisor = 1
    for mark, by in (
        (0, 2),
        (50, 4),
        (200, 5),
        (500, 6),
        (1000, 8),
        (2000, 10),
        (4000, 12),
        (6000, 15),
        (8000, 20),
    ):
        if 10_000 * query > mark * queries:
            divisor = by
    return alpha / divisor


def rows_of(t, norm):
    """`[channels, units]` of one image."""
    return t.reshape(1 if norm == "l0-elements" else CHANNELS, -1)


def pixels_moved(x, state, share, numbers, norm):
    """Some changed pixels go back; as many places take random ends of the box."""
    clean, now = rows_of(x, norm), rows_of(state, norm).clone()
    k, (channels, units) = BUDGET[norm], clean.shape
    moved = max(round(share * k), 1)
    changed = [u for u in range(units) if bool((clean[:, u] != now[:, u]).any())]
    members = (changed + [u for u in range(units) if u not in changed])[:k]
    by_number = sorted(range(k), key=lambda i: -float(numbers[i]))
    for i in by_number[:moved]:
        now[:, members[i]] = clean[:, members[i]]
    places = [int(float(u) * units) for u in numbers[k : k + moved]]
    values = (numbers[2 * k :].reshape(channels, k)[:, :moved] >= 0.5).double()
    for place in set(places):
        here = [i for i, p in enumerate(places) if p == place]
        now[:, place] = values[:, here].amax(1)
    return now.reshape(state.shape)


class Laid:
    """A patch: where it begins, and what is shown everywhere, of which it is a window."""

    def __init__(self, corner, canvas):
        self.corner, self.canvas = corner, canvas

    def image(self, x):
        k, (top, left) = BUDGET["patch"], self.corner
        point = x.clone()
        point[:, top : top + k, left : left + k] = self.canvas[:, top : top + k, left : left + k]
        return point

    def moved(self, share, numbers):
        k = BUDGET["patch"]
        move, leap, far, where, values = (*numbers[:2], numbers[2:4], numbers[4:6], numbers[6:])
        if float(move) < 0.25:
            reach, corner = max(round(share * SIDE), 1), []
            for place, u in zip(self.corner, far.tolist(), strict=True):
                if float(leap) < 0.5:
                    corner.append(int(u * (SIDE - k + 1)))
                else:
                    corner.append(min(max(place + int(u * (2 * reach + 1)) - reach, 0), SIDE - k))
            shift = [new - old for new, old in zip(corner, self.corner, strict=True)]
            return Laid(tuple(corner), self.canvas.roll(shift, (1, 2)))
        square = max(round(math.sqrt(share) * k), 1)
        top, left = (p + int(u * (k - square + 1)) for p, u in zip(self.corner, where.tolist(), strict=True))
        canvas = self.canvas.clone()
        canvas[:, top : top + square, left : left + square] = (values >= 0.5).double()[:, None, None]
        return Laid(self.corner, canvas)


def walk(net, n, norm, start, numbers, patch=None):
    x, y = net.x[n], int(net.y[n])
    loss, state, path, kept = margin_loss_of(net, y), patch or start, [start], 0
    value = float(loss(start))
    for query in range(QUERIES - 1):
        share = share_at(query, QUERIES)
        if norm == "patch":
            candidate = state.moved(share, numbers[query])
            point = candidate.image(x)
        else:
            candidate = point = pixels_moved(x, state, share, numbers[query], norm)
        path.append(point)
        if float(loss(point)) > value:
            value, state, kept, start = float(loss(point)), candidate, kept + 1, point
    return path, start, kept


def drawn(net, norm):
    """What the attack starts from and the numbers that it draws, so many queries at a time."""
    streams, threat = net.streams(), threat_model(norm, BUDGET[norm])
    patches = None
    if norm == "patch":
        corner = threat.random_corner(net.x, generator=streams)
        canvas = (
            streams.uniform(CHANNELS, SIDE, SIDE) >= 0.5
        ).double()  # so small, each pixel is its own square
        patches = [Laid(tuple(c.tolist()), shown) for c, shown in zip(corner, canvas, strict=True)]
        start = [patch.image(x) for patch, x in zip(patches, net.x, strict=True)]
        each, ahead = 2 + 4 + CHANNELS, 64
    else:
        start = threat.random_point(net.x, generator=streams)
        each, ahead = BUDGET[norm] * (2 + (CHANNELS if norm == "l0" else 1)), 16
    parts = [streams.uniform(min(ahead, QUERIES - 1 - begin), each) for begin in range(0, QUERIES - 1, ahead)]
    return start, patches, torch.cat(parts, 1)


def problem():
    return curved(channels=CHANNELS, sharpness=2.0, seed=3)


@pytest.mark.parametrize("norm", list(BUDGET))
def test_every_query_is_that_of_the_paper(norm):
    net, threat = problem(), threat_model(norm, BUDGET[norm])
    attack = SparseRS(queries=QUERIES, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    start, patches, numbers = drawn(net, norm)
    total = 0
    for n in range(len(net.x)):
        path, best, kept = walk(net, n, norm, start[n], numbers[n], patches and patches[n])
        follows(net.asked, n, path, 1e-12)
        torch.testing.assert_close(found[n], best, rtol=0, atol=1e-12)
        total += kept
    assert 0 < total < (QUERIES - 1) * len(net.x)


@pytest.mark.parametrize("norm", list(BUDGET))
def test_who_is_fooled_leaves_and_the_others_walk_on(norm):
    net, threat = problem(), threat_model(norm, BUDGET[norm])
    found = SparseRS(queries=QUERIES).run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    start, patches, numbers = drawn(net, norm)
    walks = [walk(net, n, norm, start[n], numbers[n], patches and patches[n])[0] for n in range(len(net.x))]
    left = list(range(len(net.x)))
    for query, points in enumerate(net.asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], walks[n][query], rtol=0, atol=1e-12)
            if int(net.logits(points[row]).argmax()) != int(net.y[n]):
                torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-12)
                left.remove(n)
    assert len(left) < len(walks)


def test_a_larger_patch_starts_as_a_grid_of_squares():
    x, threat = torch.full((3, 2, 20, 17), 0.5), Patch(epsilon=9)
    moves = PatchMoves(threat, x)
    streams = Streams.seeded(3, torch.arange(3))
    state = moves.start(streams)
    streams = Streams.seeded(3, torch.arange(3))
    corner = threat.random_corner(x, generator=streams)
    shown = (streams.uniform(2, 20, 17) >= 0.5).float()
    for n, (top, left) in enumerate(corner.tolist()):
        for row in range(20):
            for column in range(17):  # nine over four: squares of two
                inside = top <= row < top + 9 and left <= column < left + 9
                assert float(state[n, -1, row, column]) == inside
                expected = shown[n, :, row // 2, column // 2]
                torch.testing.assert_close(state[n, :-1, row, column], expected, rtol=0, atol=0)
    image = moves.image(state)
    assert torch.equal(image == 0.5, (state[:, -1:] == 0).expand_as(image))


@pytest.mark.parametrize("norm", ["l0", "patch"])
def test_signals_and_volumes_are_searched_too(norm):
    for shape in ((2, 9), (1, 4, 5, 6)):
        x = torch.full((2, *shape), 0.5, dtype=torch.float64)
        ones = Curved(torch.nn.Flatten(), x, torch.zeros(2, dtype=torch.int64))

        def network(z):
            total = (z - 0.5).flatten(1).sum(1)
            return torch.stack([torch.full_like(total, 100.0), total], 1)

        ones.layers = network
        threat = threat_model(norm, 2)
        found = SparseRS(queries=200, early_stop=False).run(
            ones.classifier(), x, ones.y, threat, generator=ones.streams()
        )
        changed = (found != x).any(1).flatten(1).sum(1)
        most = 2 if norm == "l0" else 2 ** (len(shape) - 1)
        assert changed.tolist() == [most, most]
        assert bool((found[found != x] == 1).all())


def test_the_share_of_ten_thousand_queries():
    attack = SparseRS(queries=10_000, alpha_init=0.7)
    for query in (0, 1, 50, 51, 200, 201, 500, 501, 1000, 1001, 2001, 4000, 4001, 6001, 8000, 8001, 9999):
        assert attack.share(query, 10_000) == pytest.approx(share_at(query, 10_000, 0.7))


def test_no_pixel_at_all_stays_where_it_is():
    net = problem()
    found = SparseRS(queries=3, early_stop=False).run(
        net.classifier(), net.x, net.y, threat_model("l0", 0), generator=net.streams()
    )
    assert torch.equal(found, net.x)


def test_it_says_what_it_is_and_that_balls_are_for_another():
    assert SparseRS(queries=7).describe() == "Sparse-RS-7"
    net = problem()
    with pytest.raises(Unsupported, match="the threat model is l2; use `Square`"):
        SparseRS().run(net.classifier(), net.x, net.y, threat_model("l2", 1.0), generator=net.streams())
