"""FAB step by step against algorithm 1 of Croce & Hein 2020 (arXiv:1907.02044), on a curved network in float64."""

import pytest
import torch
from tests.attacks.curved import curved, value_and_slope

from unmask.attacks import FAB
from unmask.threat import threat_model

STEPS = 12


def to_boundary(x, normal, gap, norm):
    """Least delta with normal . delta = gap and x + delta in the box: by bisection on how far every pixel goes."""
    slope, sign = normal.abs(), normal.sign() * (1 if gap >= 0 else -1)
    room = torch.where(sign > 0, 1 - x, x)
    if norm == "l1":  # the steepest pixels, one after the other, to the wall
        delta, missing = torch.zeros_like(x).flatten(), abs(gap)
        for k in slope.flatten().argsort(descending=True).tolist():
            if missing <= 0 or not slope.flatten()[k] > 0:
                break
            delta[k] = min(missing / float(slope.flatten()[k]), float(room.flatten()[k]))
            missing -= float(delta[k] * slope.flatten()[k])
        return sign * delta.reshape(x.shape)
    speed = torch.ones_like(slope) if norm == "linf" else slope
    if float((slope * room).sum()) <= abs(gap):
        return sign * torch.where(slope > 0, room, 0.0)
    low, high = 0.0, 1e9
    for _ in range(120):
        middle = (low + high) / 2
        over = float((slope * torch.minimum(middle * speed, room)).sum()) > abs(gap)
        low, high = (low, middle) if over else (middle, high)
    return sign * torch.minimum(high * speed, room)


def length(delta, norm):
    return float({"linf": delta.abs().max(), "l2": delta.norm(), "l1": delta.abs().sum()}[norm])


class Algorithm1:
    """One image from itself, alpha_max = 0.1, eta = 1.05, beta = 0.9. `path`: after each step, the point looked at."""

    def __init__(self, net, x, y, norm, classes):
        current, self.path, self.nearest, self.least = x, [], None, torch.inf
        self.backsteps = self.switches = 0
        dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
        last = None
        for _ in range(STEPS):
            planes = []
            for other in classes:
                value, slope = value_and_slope(
                    lambda point, other=other: net.logits(point)[other] - net.logits(point)[y], current
                )
                planes.append((abs(value) / length(slope, dual), other, value, slope))
            _, which, value, slope = min(planes, key=lambda plane: plane[0])
            self.switches += last not in (None, which)
            last = which
            step = to_boundary(current, slope, -value, norm)
            at_x = value + float((slope * (x - current)).sum())
            step_from_x = to_boundary(x, slope, -at_x, norm)
            near, far = length(step, norm), length(step_from_x, norm)
            alpha = min(near / (near + far), 0.1)
            current = ((1 - alpha) * (current + 1.05 * step) + alpha * (x + 1.05 * step_from_x)).clamp(0, 1)
            self.path.append(current)
            if int(net.logits(current).argmax()) != y:
                if length(current - x, norm) < self.least:
                    self.nearest, self.least = current, length(current - x, norm)
                current = x + 0.9 * (current - x)
                self.backsteps += 1


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_step_is_that_of_algorithm_1(norm):
    net, threat = curved(sharpness=3.0, seed=2), threat_model(norm, 50.0)
    found = FAB(steps=STEPS, early_stop=False).run(
        net.classifier(), net.x, net.y, threat, generator=net.streams()
    )
    looked_at = net.asked[4 : 1 + 4 * STEPS : 4]  # one clean pass; then three planes and one look a step
    backsteps = switches = 0
    for n in range(len(net.x)):
        y = int(net.y[n])
        one = Algorithm1(net, net.x[n], y, norm, [k for k in range(4) if k != y])
        for ours, theirs in zip(looked_at, one.path, strict=True):
            torch.testing.assert_close(ours[n], theirs, rtol=0, atol=1e-8)
        backsteps, switches = backsteps + one.backsteps, switches + one.switches
        if one.nearest is not None:  # and three secant steps nearer
            assert 0.5 * one.least <= length(found[n] - net.x[n], norm) <= one.least + 1e-9
            assert int(net.logits(found[n]).argmax()) != y
    assert 0 < backsteps < STEPS * len(net.x)
    assert switches > 0


def test_one_by_one_looks_at_one_class_at_a_time_the_likeliest_first():
    net, threat = curved(sharpness=3.0, seed=2), threat_model("l2", 50.0)
    FAB(steps=STEPS, one_by_one=True, targets=2, early_stop=False).run(
        net.classifier(), net.x[:1], net.y[:1], threat, generator=net.streams()
    )
    y, logits = int(net.y[0]), net.logits(net.x[0])
    ranked = [k for k in logits.argsort(descending=True).tolist() if k != y]
    for turn in range(2):
        one = Algorithm1(net, net.x[0], y, "l2", [ranked[turn]])
        begin = 1 + turn * (2 * STEPS + 5)  # an estimate and a look a step, five forwards to draw back
        looked_at = net.asked[begin + 1 : begin + 2 * STEPS : 2]
        for ours, theirs in zip(looked_at, one.path, strict=True):
            torch.testing.assert_close(ours[0], theirs, rtol=0, atol=1e-8)
