"""RayS, query by query against the hierarchical search of Chen & Gu 2020."""

import pytest
import torch
from tests.attacks.curved import curved, follows

from unmask.attacks import RayS, Setting
from unmask.errors import Unsupported
from unmask.threat import L2, Linf


def search(logits, x, y, queries, inside=-1.0):
    """One image: all queries, the last sign vector and its radius. Ten halvings stand for the paper's tolerance.

    It ends early once the radius is no more than `inside`.
    """
    path = []

    def wrong(signs, radius):
        point = (x + radius * signs.reshape(x.shape)).clamp(0, 1)
        path.append(point)
        return int(logits(point).argmax()) != y

    d = x.numel()
    signs, radius, level, block, found = torch.ones(d, dtype=x.dtype), 1.0, 0, None, False
    while True:
        attempt = signs.clone()
        if block is not None:
            length = -(-d // 2**level)
            attempt[block * length : (block + 1) * length] *= -1
        if wrong(attempt, radius):  # only a direction that is better at the best radius is searched
            low, high = 0.0, radius
            for _ in range(10):
                middle = (low + high) / 2
                low, high = (low, middle) if wrong(attempt, middle) else (middle, high)
            signs, radius, found = attempt, high, True
        if len(path) + 1 + 10 > queries or (found and radius <= inside):
            return path, signs, radius
        block = 0 if block is None else block + 1
        if block * -(-d // 2**level) >= d:
            block, level = 0, (level + 1 if 2**level < d else 0)


def test_every_query_is_that_of_the_search():
    net = curved(channels=1, sharpness=3.0, seed=2)
    for n in range(3):
        net.asked.clear()
        attack = RayS(queries=260, early_stop=False)
        x, y = net.x[n : n + 1], net.y[n : n + 1]
        found = attack.run(net.classifier(), x, y, Linf(epsilon=1.0), generator=net.streams()[n : n + 1])
        path, signs, radius = search(net.logits, net.x[n], int(net.y[n]), 260)
        follows(net.asked, 0, path, 1e-12)
        expected = (x[0] + radius * signs.reshape(x[0].shape)).clamp(0, 1)
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-6)
        assert radius < 0.5


def test_who_is_inside_the_ball_leaves():
    net = curved(channels=1, sharpness=3.0, seed=2)
    x, y, threat = net.x[:1], net.y[:1], Linf(epsilon=0.4)
    RayS(queries=260, early_stop=True).run(net.classifier(), x, y, threat, generator=net.streams()[:1])
    short = len(net.asked)
    path, _, _ = search(net.logits, net.x[0], int(net.y[0]), 260)
    follows(net.asked, 0, path[:short], 1e-12)
    assert short < 260 - 11


@pytest.mark.parametrize(
    ("channels", "epsilon", "early_stop"),
    [(1, 1.0, False), (1, 0.15, False), (1, 0.15, True), (2, 1.0, True)],  # the last finds nothing at all
)
def test_a_batch_is_searched_as_its_examples_alone(channels, epsilon, early_stop):
    """To the end, or until the radius lies inside the ball."""
    net = curved(channels=channels, sharpness=6.0, seed=2)
    found = RayS(queries=100, early_stop=early_stop).run(
        net.classifier(), net.x, net.y, Linf(epsilon=epsilon), generator=net.streams()
    )
    spent, left = 0, 0
    for n in range(len(net.x)):
        x, y = net.x[n], int(net.y[n])
        path, signs, radius = search(net.logits, x, y, 100, epsilon if early_stop else -1.0)
        point = (x + min(radius, epsilon) * signs.reshape(x.shape)).clamp(0, 1)
        torch.testing.assert_close(found[n], point, rtol=0, atol=1e-6)
        spent, left = spent + len(path), left + (radius <= epsilon)
    assert sum(len(points) for points in net.asked) == spent
    assert left == 6 if epsilon == 1 else 0 < left < 6


def test_it_needs_one_boundary_and_says_what_it_is():
    assert RayS(queries=7).describe() == "RayS-7 (labels only)"
    assert RayS(queries=7).cost(4).forwards == 7
    assert RayS().fit(Setting(random=True)) is None
    assert RayS(queries=7).fit(Setting()) == RayS(queries=7)
    net = curved()
    with pytest.raises(Unsupported, match="the Linf ball, not L2; use `HopSkipJump`"):
        RayS().run(net.classifier(), net.x, net.y, L2(epsilon=1.0), generator=net.streams())
