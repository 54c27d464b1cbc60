"""Square query by query against algorithms 1 to 3 of Andriushchenko et al. 2020, given the same random numbers."""

import math

import pytest
import torch
from tests.attacks.curved import SIDE, curved, follows
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import Square
from unmask.attacks.square_moves import _planes, _window
from unmask.errors import Unsupported
from unmask.randomness import Streams
from unmask.threat import threat_model

QUERIES, CHANNELS = 90, 2
EPSILON = {"linf": 0.2, "l2": 0.8, "l1": 2.0}


def share_at(query, queries):
    """Section 5: p halves after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries."""
    p = 0.8
    for mark in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000):
        if 10_000 * query > mark * queries:
            p /= 2
    return p


def drawn(net, norm):
    """The numbers that the attack draws: signs of the start, then some for each query, 64 queries at a time."""
    streams = net.streams()
    blocks = SIDE if norm != "linf" else 1
    signs = streams.signs(CHANNELS, blocks, SIDE)
    each = 2 + CHANNELS if norm == "linf" else 5 + CHANNELS
    parts = [streams.uniform(min(64, QUERIES - 1 - begin), each) for begin in range(0, QUERIES - 1, 64)]
    return signs.double(), torch.cat(parts, 1)


def bump(tall, wide):
    """The paper's eta: nested squares, one over their number squared, above and below with opposite signs."""

    def pyramid(rows, columns):
        middle, values = (rows // 2, columns // 2), torch.zeros(rows, columns).double()
        for r in range(rows):
            for c in range(columns):
                ring = max(abs(r - middle[0]), abs(c - middle[1]))
                values[r, c] = sum(1 / (m + 1) ** 2 for m in range(ring, max(middle) + 1))
        return values

    upper = tall // 2
    both = torch.cat([pyramid(upper, wide), -pyramid(tall - upper, wide)])
    return both / both.norm()


def linf_candidate(x, current, share, numbers, epsilon):
    """A window whose every channel goes to plus or minus epsilon; the other sign where that changes nothing."""
    side = max(round(math.sqrt(share * SIDE * SIDE)), 1)
    row, column = (int(float(u) * (SIDE - side + 1)) for u in numbers[:2])

    def placed(turn):
        point = current.clone()
        for channel in range(CHANNELS):
            sign = turn if numbers[2 + channel] >= 0.5 else -turn
            window = (channel, slice(row, row + side), slice(column, column + side))
            point[window] = (x[window] + sign * epsilon).clamp(0, 1)
        return point

    point = placed(1)
    return placed(-1) if torch.equal(point, current) else point


def lp_candidate(x, current, share, numbers, epsilon, p):
    """Algorithm 3: what the ball still allows, and the mass of another window, go into this one."""
    delta = current - x
    side = min(max(max(round(math.sqrt(share * SIDE * SIDE)), 1) | 1, 3), SIDE)
    row, column, row2, column2 = (int(float(u) * (SIDE - side + 1)) for u in numbers[:4])
    first = (slice(row, row + side), slice(column, column + side))
    second = (slice(row2, row2 + side), slice(column2, column2 + side))
    unused = max(epsilon**p - float(delta.abs().pow(p).sum()), 0.0)
    eta = bump(side, side)
    eta = eta.T if numbers[4] >= 0.5 else eta
    inside_norm = max(float(delta[:, first[0], first[1]].abs().pow(p).sum()) ** (1 / p), 1e-12)
    new = delta.clone()
    for c in range(CHANNELS):
        union = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        union[first] = union[second] = True
        budget = unused / CHANNELS + float(delta[c][union].abs().pow(p).sum())
        sign = 1.0 if numbers[5 + c] >= 0.5 else -1.0
        moved = sign * eta + delta[c][first] / inside_norm
        new[c][union] = 0.0
        new[c][first] = moved / float(moved.abs().pow(p).sum()) ** (1 / p) * budget ** (1 / p)
    new *= epsilon / float(new.abs().pow(p).sum()) ** (1 / p)
    return (x + new).clamp(0, 1)


def walk(net, n, norm, signs, numbers):
    x, y, epsilon = net.x[n], int(net.y[n]), EPSILON[norm]
    p = {"l2": 2.0, "l1": 1.0}.get(norm, torch.inf)
    if norm == "linf":
        current = (x + epsilon * signs[n].expand_as(x)).clamp(0, 1)
    else:  # a grid of five by five; of so small an image every pixel is a bump of its own
        current = (x + epsilon * signs[n] / float(signs[n].abs().pow(p).sum()) ** (1 / p)).clamp(0, 1)
    loss = margin_loss_of(net, y)
    value, path, kept = float(loss(current)), [current], 0
    for query in range(QUERIES - 1):
        share = share_at(query, QUERIES)
        if norm == "linf":
            candidate = linf_candidate(x, current, share, numbers[n, query], epsilon)
        else:
            candidate = lp_candidate(x, current, share, numbers[n, query], epsilon, p)
        path.append(candidate)
        new = float(loss(candidate))
        if new > value:
            current, value, kept = candidate, new, kept + 1
    return path, current, kept


@pytest.mark.parametrize("norm", list(EPSILON))
def test_every_query_is_that_of_the_paper(norm):
    net, threat = curved(channels=CHANNELS, sharpness=2.0, seed=3), threat_model(norm, EPSILON[norm])
    attack = Square(queries=QUERIES, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    signs, numbers = drawn(net, norm)
    total = 0
    for n in range(len(net.x)):
        path, best, kept = walk(net, n, norm, signs, numbers)
        follows(net.asked, n, path, 1e-12 if norm == "linf" else 1e-6)  # the bumps come in float32
        torch.testing.assert_close(found[n], best, rtol=0, atol=1e-6)
        total += kept
    assert 0 < total < (QUERIES - 1) * len(net.x)


def test_the_share_of_ten_thousand_queries():
    attack = Square(queries=10_000)
    for query in (0, 10, 11, 50, 51, 200, 201, 500, 501, 1000, 1001, 2001, 4001, 6001, 8000, 8001, 9999):
        assert attack.share(query, 10_000) == pytest.approx(share_at(query, 10_000))


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_the_start_is_a_grid_of_five_by_five_bumps(norm):
    """Of 17 x 23 pixels each bump has 3 x 4, and what is left over lies around the grid, unchanged."""
    x = torch.full((3, 2, 17, 23), 0.5, dtype=torch.float64)
    moves = Square().moves(threat_model(norm, 0.7), x)
    streams = Streams.seeded(3, torch.arange(3))
    delta = moves.start(streams) - x
    signs = Streams.seeded(3, torch.arange(3)).signs(2, 5, 5).double()
    expected = torch.zeros_like(delta)
    for row in range(5):
        for column in range(5):
            top, left = 1 + 3 * row, 1 + 4 * column
            expected[:, :, top : top + 3, left : left + 4] = signs[:, :, row, column, None, None] * bump(3, 4)
    power = {"l2": 2, "l1": 1}[norm]
    expected *= 0.7 / expected.abs().pow(power).sum((1, 2, 3), keepdim=True).pow(1 / power)
    torch.testing.assert_close(delta, expected, rtol=0, atol=1e-6)


def test_windows_of_low_and_of_narrow_images_are_longer_and_never_leave_them():
    assert _window(0.8, 10, 10) == (9, 9)
    assert _window(0.5, 2, 30) == (2, 15)
    assert _window(0.5, 30, 2) == (15, 2)
    assert _window(0.8, 40, 20) == (32, 20)
    assert _window(0.8, 20, 40) == (20, 32)
    assert _window(0.8, 1, 20) == (1, 16)
    assert _window(1e-6, 8, 8) == (1, 1)
    assert _window(1.0, 3, 5) == (3, 5)


def test_other_inputs_are_laid_out_as_planes():
    for shape, planes in (
        ((2, 7), (2, 1, 1, 7)),
        ((2, 3, 7), (2, 3, 1, 7)),
        ((2, 3, 5, 7), (2, 3, 5, 7)),
        ((2, 3, 4, 5, 7), (2, 12, 5, 7)),
    ):
        x = torch.arange(math.prod(shape)).reshape(shape)
        assert _planes(x).shape == planes
        assert _planes(x).flatten().tolist() == x.flatten().tolist()


def test_who_is_fooled_leaves_with_its_numbers_and_the_others_walk_on():
    net, threat = curved(channels=CHANNELS, sharpness=2.0, seed=3), threat_model("linf", EPSILON["linf"])
    found = Square(queries=QUERIES).run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    signs, numbers = drawn(net, "linf")
    walks = {n: walk(net, n, "linf", signs, numbers) for n in range(len(net.x))}
    left = list(walks)
    for query, points in enumerate(net.asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], walks[n][0][query], rtol=0, atol=1e-12)
            if int(net.logits(points[row]).argmax()) != int(net.y[n]):
                torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                left.remove(n)
    assert 0 < len(left) < len(walks)


def test_it_says_what_it_is_and_what_it_cannot():
    assert Square(queries=7).describe() == "Square-7"
    assert Square(queries=7).cost(3).forwards == 7
    with pytest.raises(Unsupported, match="not 0-D inputs; use `RayS`"):
        Square().moves(threat_model("linf", 0.1), torch.zeros(3))
    with pytest.raises(Unsupported, match="not 5-D inputs; use `RayS`"):
        Square().moves(threat_model("linf", 0.1), torch.zeros(3, 1, 1, 1, 1, 1))
    with pytest.raises(Unsupported, match="no moves for L0; use `SparseRS`"):
        Square().moves(threat_model("l0", 1), torch.zeros(3, 1, 2, 2))
    Square().moves(threat_model("l1", 1), torch.zeros(3, 2))
    Square().moves(threat_model("linf", 1), torch.zeros(3, 1, 2, 2, 2))
