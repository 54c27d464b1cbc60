"""The boundary walk step by step: its start, the way back, the ball that shrinks while it fools, the steps inside.

Written a second time from what the class says of itself, one image at a time, on a curved network in float64.
"""

import math

import pytest
import torch
from tests.attacks.curved import CLASSES, SIDE, Asked, curved, follows, project, value_and_slope
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import BoundaryWalk, Others
from unmask.errors import Unsupported
from unmask.randomness import Streams
from unmask.threat import threat_model

EPSILON = {"linf": 0.05, "l2": 0.12, "l1": 0.3}
STEPS, OUTSIDE = 15, 10  # 0.33 of the steps are kept for the ball itself


def length(delta, norm):
    return float({"linf": delta.abs().max(), "l2": delta.norm(), "l1": delta.abs().sum()}[norm])


def ascended(point, slope, far, norm):
    if norm == "linf":
        return (point + far * slope.sign()).clamp(0, 1)
    if norm == "l2":
        return (point + far * slope / slope.norm()).clamp(0, 1)
    moved = point.clone().flatten()  # the steepest pixels to the wall, one after the other
    for k in slope.abs().flatten().argsort(descending=True).tolist():
        up = bool(slope.flatten()[k] > 0)
        room = float(1 - moved[k] if up else moved[k])
        step = min(room, far)
        moved[k] += step if up else -step
        far -= step
    return moved.reshape(point.shape)


class Walk:
    """One image from one point that fools. `path`: all that is asked; `best` inside the ball, by margin loss."""

    def __init__(self, net, n, start, norm, gamma=0.3, rel=0.3, steps=STEPS, outside=OUTSIDE):
        x, y, epsilon, self.path = net.x[n], int(net.y[n]), EPSILON[norm], []
        loss = margin_loss_of(net, y)
        low, high = 0.0, 1.0
        for _ in range(6):
            middle = (low + high) / 2
            self.path.append(x + middle * (start - x))
            low, high = (low, middle) if float(loss(self.path[-1])) > 0 else (middle, high)
        point = x + high * (start - x)
        radius = nearest = max(length(point - x, norm), epsilon)
        gamma = max(gamma, 1 - (epsilon / radius) ** (1 / (0.6 * outside)))
        self.hurried = gamma > 0.3
        self.best, self.most, self.capped, self.slipped, self.fools = x, -torch.inf, 0, 0, None
        for step in range(steps + 1):
            self.path.append(point)
            value, slope = value_and_slope(loss, point)
            away = length(point - x, norm)
            if away <= epsilon * (1 + 1e-6):
                if value > self.most:
                    self.best, self.most = point, value
                if value > 0 and self.fools is None:
                    self.fools = len(self.path) - 1
            if step == steps:
                return
            if step < outside:
                slow = (1 + math.cos(math.pi * step / outside)) / 2
                if value > 0:
                    nearest = min(nearest, away)
                    radius = min(radius, away) * (1 - gamma * slow)
                else:
                    self.slipped += 1
                    self.capped += radius * (1 + gamma * slow) > nearest
                    radius = min(radius * (1 + gamma * slow), nearest)
                radius = max(radius, epsilon)
                size = rel * (0.1 + 0.9 * slow) * radius
            else:
                radius, left = epsilon, 1 - (step - outside) / (steps - outside)
                size = 2 * rel * left * epsilon
            point = project(ascended(point, slope, size, norm), x, norm, radius)


def balanced(sharpness=6.0, seed=2):
    """Examples of several classes, for no class has larger logits than another on average; and images of all."""
    net = curved(sharpness=sharpness, seed=seed)
    x = torch.rand(40, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5)).double()
    net.layers[-1].bias -= net.layers(x).mean(0)
    net.y = net.layers(net.x).argmax(1)
    return net, Others(x, net.layers(x).argmax(1))


def nearest_classes(net, others, n):
    """Images of one wrong class each, the nearest first."""
    gaps = (others.x - net.x[n]).flatten(1).norm(dim=1)
    found = {}
    for k in gaps.argsort().tolist():
        found.setdefault(int(others.classes[k]), others.x[k])
    found.pop(int(net.y[n]), None)
    return list(found.values())


@pytest.mark.parametrize("norm", list(EPSILON))
def test_every_step_from_the_nearest_images(norm):
    net, others = balanced()
    attack = BoundaryWalk(others=others, steps=STEPS, starts=2, early_stop=False)
    threat = threat_model(norm, EPSILON[norm])
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    once = 6 + STEPS + 1
    assert len(net.asked) == 2 * once
    hurried = capped = slipped = 0  # that each of these happens, and not always
    for n in range(len(net.x)):
        ends = []
        for turn, start in enumerate(nearest_classes(net, others, n)[:2]):
            one = Walk(net, n, start, norm)
            follows(net.asked[turn * once : (turn + 1) * once], n, one.path, 1e-6)
            ends.append((one.most, one.best))
            hurried, capped, slipped = hurried + one.hurried, capped + one.capped, slipped + one.slipped
        torch.testing.assert_close(found[n], max(ends, key=lambda pair: pair[0])[1], rtol=0, atol=1e-6)
    assert 0 < hurried < 2 * len(net.x)
    assert 0 < capped <= slipped < OUTSIDE * 2 * len(net.x)


def test_who_fools_inside_the_ball_leaves_and_the_others_walk_on():
    net, others = balanced()
    attack = BoundaryWalk(others=others, steps=STEPS, starts=1)
    found = attack.run(
        net.classifier(), net.x, net.y, threat_model("l2", EPSILON["l2"]), generator=net.streams()
    )
    walks = {n: Walk(net, n, nearest_classes(net, others, n)[0], "l2") for n in range(len(net.x))}
    left = list(walks)
    for query, points in enumerate(net.asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], walks[n].path[query], rtol=0, atol=1e-6)
            if walks[n].fools == query:
                torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                left.remove(n)
    assert 0 < len(left) < len(net.x)
    for n in left:
        torch.testing.assert_close(found[n], walks[n].best, rtol=0, atol=1e-6)


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_without_images_it_climbs_to_a_start_by_signs(goal):
    """Towards the likeliest class that earlier starts have not taken, an eighth of the box a step, until it fools."""
    net, _ = balanced()
    threat = threat_model("l2", EPSILON["l2"], goal=goal)
    starts = 1 if goal == "targeted" else 4  # the fourth begins again with the likeliest
    y = (net.y + 1) % CLASSES if goal == "targeted" else net.y
    attack = BoundaryWalk(steps=1, starts=starts, early_stop=False)
    attack.run(net.classifier(), net.x, y, threat, generator=net.streams())
    each = 10 + 6 + 2 + (goal == "untargeted")
    assert len(net.asked) == starts * each
    arrived = 0
    for n in range(len(net.x)):
        label = int(y[n])
        ranked = [k for k in net.logits(net.x[n]).argsort(descending=True).tolist() if k != label]
        for turn in range(starts):
            asked = [points[n] for points in net.asked[turn * each : (turn + 1) * each]]
            if goal == "untargeted":
                torch.testing.assert_close(asked.pop(0), net.x[n], rtol=0, atol=0)
            point = net.x[n]
            for step in range(10):
                torch.testing.assert_close(asked[step], point, rtol=0, atol=1e-12)

                def pull(z, aim=ranked[turn % 3], label=label):
                    logits = net.logits(z)
                    if goal == "targeted":
                        return -margin_loss_of(net, label)(z)
                    return logits[aim] - logits[label]

                now = int(net.logits(point).argmax())
                if (now == label) is (goal == "targeted"):
                    break
                point = (point + 0.125 * value_and_slope(pull, point)[1].sign()).clamp(0, 1)
            now = int(net.logits(point).argmax())
            if (now == label) is (goal == "targeted"):
                arrived += 1
                torch.testing.assert_close(asked[9], point, rtol=0, atol=1e-12)  # it stays where it fools
            torch.testing.assert_close(asked[10], (point + net.x[n]) / 2, rtol=0, atol=1e-12)
    assert arrived > len(net.x) * starts // 2


def test_starts_that_earlier_walks_have_taken_are_left_out_of_the_climb_too():
    net, _ = balanced()
    asked = []
    for attack in (
        BoundaryWalk(steps=1, starts=2, early_stop=False),
        BoundaryWalk(steps=1, starts=1, first=1),
    ):
        net.asked.clear()
        attack.run(net.classifier(), net.x, net.y, threat_model("l2", 1e-3), generator=net.streams())
        asked.append(list(net.asked))
    each = 11 + 6 + 2
    assert len(asked[0]) == 2 * each
    for theirs, ours in zip(asked[0][each:], asked[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_climb_leaves_alone_what_has_no_slope():
    """The first pixel decides; the second does nothing at all."""
    x, asked = torch.full((2, 1, 1, 2), 0.4, dtype=torch.float64), []

    def network(z):
        asked.append(z.detach().clone())
        lead = z.flatten(1)[:, 0] - 0.7
        return torch.stack([torch.zeros_like(lead), lead], 1)

    classifier = Asked(network, deterministic=True)
    streams = Streams.seeded(0, torch.arange(2))
    BoundaryWalk(steps=1, starts=1).run(
        classifier, x, torch.zeros(2).long(), threat_model("l2", 0.1), generator=streams
    )
    assert all(bool((points[..., 1] == 0.4).all()) for points in asked)
    assert float(asked[10][0, 0, 0, 0]) == pytest.approx(0.4 + 3 * 0.125)


def test_images_of_another_precision_are_no_obstacle():
    net, others = balanced()
    single = Others(others.x.float(), others.classes)
    attack = BoundaryWalk(others=single, steps=3, starts=1, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat_model("linf", 0.05), generator=net.streams())
    assert found.dtype == torch.float64
    for n in range(len(net.x)):
        start = nearest_classes(net, single, n)[0].double()
        torch.testing.assert_close(net.asked[0][n], (start + net.x[n]) / 2, rtol=0, atol=1e-12)


def test_it_says_what_it_is_and_who_cannot_count_pixels():
    assert BoundaryWalk(steps=9, starts=1).describe() == "boundary walk of 9 steps from 1 image"
    assert BoundaryWalk(steps=9, starts=2).describe() == "boundary walk of 9 steps from 2 images"
    assert BoundaryWalk(first=2).describe() == "boundary walk of 30 steps from 3 more images"
    net = curved()
    with pytest.raises(Unsupported, match=r"^`BoundaryWalk` "):
        BoundaryWalk().run(net.classifier(), net.x, net.y, threat_model("l0", 1), generator=net.streams())
