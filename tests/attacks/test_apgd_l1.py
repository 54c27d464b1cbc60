"""APGD under L1, step by step against algorithms 1 and 2 of Croce & Hein 2021, on a curved network in float64."""

import pytest
import torch
from tests.attacks.curved import Curved, curved, follows, project, value_and_slope
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import APGD
from unmask.objectives import margin_loss
from unmask.threat import L1

EPSILON, STEPS = 2.5, 50


def support(point, x):
    return int((point != x).sum())


def sparse_ascent(slope, density):
    """Signs of the largest `density * d` entries, over their number."""
    kept = min(max(int(density * slope.numel()), 1), slope.numel())
    chosen = slope.abs().flatten().argsort(descending=True)[:kept]
    direction = torch.zeros_like(slope).flatten()
    direction[chosen] = slope.flatten()[chosen].sign()
    return (direction / direction.abs().sum().clamp_min(1)).reshape(slope.shape)


class Phases:
    """Algorithm 2 with the radii 3, 2 and 1 epsilon for 30, 30 and 40 % of the steps; within each, algorithm 1."""

    def __init__(self, net: Curved, x, y, start, steps):
        self.objective, self.x, self.path = margin_loss_of(net, y), x, []
        self.sparser = self.finer = 0
        first, second = round(0.3 * steps), round(0.3 * steps)
        point = self.phase(start, 3 * EPSILON, first, density=0.2)
        for radius, part in ((2 * EPSILON, second), (EPSILON, steps - first - second)):
            point = project(point, x, "l1", radius)
            point = self.phase(point, radius, part, density=support(point, x) / x.numel() / 1.5)
        self.best = point

    def phase(self, current, radius, steps, density):
        """Algorithm 1: `density` is k / d, `eta` the step, both looked at every 4 % of the steps."""
        x, d = self.x, self.x.numel()
        eta, last_support = radius, support(current, x)
        best, best_value, best_slope = current, -torch.inf, None
        density, every = max(density, 1 / d), max(round(0.04 * steps), 1)
        for step in range(steps + 1):
            value, slope = value_and_slope(self.objective, current)
            self.path.append(current)
            if value > best_value:
                best, best_value, best_slope = current, value, slope
            if step == steps:
                return best
            if step and step % every == 0:
                now = support(best, x)
                density = max(now / d / 1.5, 1 / d)
                if now < 0.95 * last_support:
                    eta, current, slope = radius, best, best_slope
                    self.sparser += 1
                else:
                    eta = max(eta / 1.5, radius / 10)
                    self.finer += 1
                last_support = now
            current = project(current + eta * sparse_ascent(slope, density), x, "l1", radius)
        raise AssertionError("every phase ends with an estimate")


@pytest.mark.parametrize("steps", [20, STEPS])
def test_every_step_is_that_of_the_paper(steps):
    net = curved(channels=2, sharpness=3.0, seed=4)
    attack = APGD(steps=steps, objective=margin_loss, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, L1(epsilon=EPSILON), generator=net.streams())
    sparser = finer = 0
    for n in range(len(net.x)):
        one = Phases(net, net.x[n], int(net.y[n]), net.asked[0][n], steps)
        follows(net.asked, n, one.path)
        torch.testing.assert_close(found[n], one.best, rtol=0, atol=1e-6)
        sparser, finer = sparser + one.sparser, finer + one.finer
    assert sparser > 0
    assert finer > 0


@pytest.mark.parametrize(("epsilon", "early"), [(12.0, True), (0.6, False)])
def test_who_fools_inside_the_final_ball_leaves_in_whatever_phase_and_the_others_walk_on(
    epsilon, early, monkeypatch
):
    monkeypatch.setattr("tests.attacks.test_apgd_l1.EPSILON", epsilon)
    net, steps = curved(channels=2, sharpness=3.0, seed=4), 20
    attack = APGD(steps=steps, objective=margin_loss)
    found = attack.run(net.classifier(), net.x, net.y, L1(epsilon=epsilon), generator=net.streams())
    start = L1(epsilon=3 * epsilon).random_start(net.x, generator=net.streams())
    walks = {n: Phases(net, net.x[n], int(net.y[n]), start[n], steps) for n in range(len(net.x))}
    left, outside, when = list(walks), 0, []
    for query, points in enumerate(net.asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], walks[n].path[query], rtol=0, atol=1e-6)
            if int(net.logits(points[row]).argmax()) == int(net.y[n]):
                continue
            if float((points[row] - net.x[n]).abs().sum()) > epsilon + 1e-9:
                outside += 1  # fools, but only in a larger ball
                continue
            torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
            left.remove(n)
            when.append(query)
    assert outside > 0
    assert (min(when) < 14) is early  # the last phase, in the ball itself, begins with that query
    assert max(when) >= 14
    assert bool(left) is not early
    for n in left:
        torch.testing.assert_close(found[n], walks[n].best, rtol=0, atol=1e-6)
