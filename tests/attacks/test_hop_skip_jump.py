"""HopSkipJump query by query against algorithm 2 of Chen, Jordan & Wainwright 2020, one image at a time."""

import math

import pytest
import torch
from tests.attacks.curved import SIDE, Curved, curved
from torch import nn

from unmask.attacks import HopSkipJump
from unmask.threat import L2

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
