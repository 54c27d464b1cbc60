"""RayS, query by query against the hierarchical search of Chen & Gu 2020."""

import torch
from tests.attacks.curved import curved, follows

from unmask.attacks import RayS
from unmask.threat import Linf


def search(logits, x, y, queries):
    """One image: all queries, the last sign vector and its radius. Ten halvings stand for the paper's tolerance."""
    path = []

    def wrong(signs, radius):
        point = (x + radius * signs.reshape(x.shape)).clamp(0, 1)
        path.append(point)
        return int(logits(point).argmax()) != y

    d = x.numel()
    signs, radius, level, block = torch.ones(d, dtype=x.dtype), 1.0, 0, None
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
            signs, radius = attempt, high
        if len(path) + 1 + 10 > queries:
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
