"""FAB step by step against algorithm 1 of Croce & Hein 2020 (arXiv:1907.02044), on a curved network in float64."""

import pytest
import torch
from tests.attacks.curved import curved, value_and_slope
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import FAB
from unmask.errors import Unsupported
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
    """One image, alpha_max = 0.1, eta = 1.05, beta = 0.9. `path`: after each step, the point looked at.

    `before`: the nearest point of an earlier run. Under a targeted `goal`, `y` is the class to reach.
    """

    def __init__(self, net, x, y, norm, classes, *, start=None, before=None, goal="untargeted"):
        current, self.path, self.x = x if start is None else start, [], x
        self.nearest, self.least = before, torch.inf if before is None else length(before - x, norm)
        self.backsteps = self.switches = 0
        margin_loss = margin_loss_of(net, y)
        self.loss = (lambda point: -margin_loss(point)) if goal == "targeted" else margin_loss
        gaps = [lambda point, k=k: net.logits(point)[k] - net.logits(point)[y] for k in classes] or [
            self.loss
        ]
        dual = {"linf": "l1", "l2": "l2", "l1": "linf"}[norm]
        last = None
        for _ in range(STEPS):
            planes = []
            for place, gap in enumerate(gaps):
                value, slope = value_and_slope(gap, current)
                planes.append((abs(value) / length(slope, dual), place, value, slope))
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
            if float(self.loss(current)) > 0:
                if length(current - x, norm) < self.least:
                    self.nearest, self.least = current, length(current - x, norm)
                current = x + 0.9 * (current - x)
                self.backsteps += 1

    def drawn_back(self):
        """The points of three secant steps on the margin loss, 0.95 of each, and the nearest that fools."""
        asked = [self.nearest, self.x]
        outer, inner = asked
        for _ in range(3):
            above, below = float(self.loss(outer)), float(self.loss(inner))
            point = outer + 0.95 * above / (above - below) * (inner - outer)
            asked.append(point)
            outer, inner = (point, inner) if float(self.loss(point)) > 0 else (outer, point)
        return asked, outer


def wrong_classes(net, n):
    """From the largest logit down."""
    ranked = net.logits(net.x[n]).argsort(descending=True).tolist()
    return [k for k in ranked if k != int(net.y[n])]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_every_step_is_that_of_algorithm_1(norm):
    net, threat = curved(sharpness=3.0, seed=2), threat_model(norm, 50.0)
    found = FAB(steps=STEPS, early_stop=False).run(
        net.classifier(), net.x, net.y, threat, generator=net.streams()
    )
    looked_at = net.asked[4 : 1 + 4 * STEPS : 4]  # one clean pass; then three planes and one look a step
    backsteps = switches = broken = 0
    for n in range(len(net.x)):
        y = int(net.y[n])
        one = Algorithm1(net, net.x[n], y, norm, [k for k in range(4) if k != y])
        for ours, theirs in zip(looked_at, one.path, strict=True):
            torch.testing.assert_close(ours[n], theirs, rtol=0, atol=1e-8)
        backsteps, switches = backsteps + one.backsteps, switches + one.switches
        if one.nearest is None:
            assert torch.equal(found[n], net.x[n])
            continue
        asked, nearest = one.drawn_back()
        for ours, theirs in zip(net.asked[1 + 4 * STEPS :], asked, strict=True):
            torch.testing.assert_close(ours[broken], theirs, rtol=0, atol=1e-7)
        torch.testing.assert_close(found[n], nearest, rtol=0, atol=1e-6)
        broken += 1
    assert 0 < backsteps < STEPS * len(net.x)
    assert switches > 0
    assert broken > 0


def test_one_by_one_looks_at_one_class_at_a_time_the_likeliest_first():
    net, threat = curved(sharpness=3.0, seed=2), threat_model("l2", 50.0)
    FAB(steps=STEPS, one_by_one=True, targets=2, early_stop=False).run(
        net.classifier(), net.x[:1], net.y[:1], threat, generator=net.streams()[:1]
    )
    assert len(net.asked) == 1 + 2 * (2 * STEPS + 5)
    for turn in range(2):
        one = Algorithm1(net, net.x[0], int(net.y[0]), "l2", [wrong_classes(net, 0)[turn]])
        begin = 1 + turn * (2 * STEPS + 5)  # an estimate and a look a step, five forwards to draw back
        looked_at = net.asked[begin + 1 : begin + 2 * STEPS : 2]
        for ours, theirs in zip(looked_at, one.path, strict=True):
            torch.testing.assert_close(ours[0], theirs, rtol=0, atol=1e-8)


def test_fewer_classes_are_the_likeliest_and_more_than_there_are_all():
    net, threat = curved(sharpness=3.0, seed=2), threat_model("l2", 50.0)
    for targets, planes in ((1, 1), (2, 2), (7, 3), (None, 3)):
        net.asked.clear()
        attack = FAB(steps=STEPS, targets=targets, early_stop=False)
        attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
        for n, y in enumerate(net.y.tolist()):
            one = Algorithm1(net, net.x[n], y, "l2", wrong_classes(net, n)[:planes])
            looked_at = net.asked[1 + planes : 1 + (planes + 1) * STEPS : planes + 1]
            for ours, theirs in zip(looked_at, one.path, strict=True):
                torch.testing.assert_close(ours[n], theirs, rtol=0, atol=1e-8)


@pytest.mark.parametrize("epsilon", [50.0, 0.5])
def test_a_restart_begins_within_half_the_distance_found_and_the_nearest_of_all_is_kept(epsilon):
    net, threat = curved(sharpness=3.0, seed=2), threat_model("l2", epsilon)
    attack = FAB(steps=STEPS, restarts=2, targets=1, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    random = threat.random_start(net.x, generator=net.streams().fork("approach"))
    begin = 1 + 2 * STEPS + 5
    assert len(net.asked) == 2 * begin - 1
    nearer = held = 0
    for n, y in enumerate(net.y.tolist()):
        x, classes = net.x[n], wrong_classes(net, n)[:1]
        first = Algorithm1(net, x, y, "l2", classes)
        nearest = first.nearest if first.nearest is None else first.drawn_back()[1]
        far = epsilon if nearest is None else min(length(nearest - x, "l2"), epsilon)
        start = x + far / epsilon / 2 * (random[n] - x)
        torch.testing.assert_close(net.asked[begin][n], start, rtol=0, atol=1e-6)
        second = Algorithm1(net, x, y, "l2", classes, start=start, before=nearest)
        for ours, theirs in zip(net.asked[begin + 1 : begin + 2 * STEPS : 2], second.path, strict=True):
            torch.testing.assert_close(ours[n], theirs, rtol=0, atol=1e-6)
        if second.nearest is None:
            assert torch.equal(found[n], x)
            continue
        nearer, held = nearer + (second.nearest is not nearest), held + (second.nearest is nearest)
        delta = second.drawn_back()[1] - x
        expected = x + delta * min(1, epsilon / float(delta.norm()))
        torch.testing.assert_close(found[n], expected, rtol=0, atol=1e-5)
    assert nearer > 0
    assert held > 0


@pytest.mark.parametrize(("one_by_one", "epsilon"), [(False, 1.0), (True, 1.6)])
def test_who_is_fooled_inside_the_ball_leaves_and_the_others_walk_on(one_by_one, epsilon):
    net, threat = curved(sharpness=3.0, seed=2), threat_model("l2", epsilon)
    attack = FAB(steps=STEPS, targets=2, one_by_one=one_by_one)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    left, asked = list(range(len(net.x))), iter(net.asked[1:])
    nearest, drawn_inside, sizes = dict.fromkeys(left), 0, [len(left)]
    for aims in (slice(0, 1), slice(1, 2)) if one_by_one else (slice(0, 2),):
        walks = {
            n: Algorithm1(net, net.x[n], int(net.y[n]), "l2", wrong_classes(net, n)[aims], before=nearest[n])
            for n in left
        }
        for step in range(STEPS):
            for _ in range(len(range(2)[aims])):
                assert len(next(asked)) == len(left)
            points = next(asked)
            for row, n in enumerate(list(left)):
                torch.testing.assert_close(points[row], walks[n].path[step], rtol=0, atol=1e-8)
                fools = int(net.logits(points[row]).argmax()) != int(net.y[n])
                if fools and length(points[row] - net.x[n], "l2") <= epsilon:
                    torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                    left.remove(n)
            sizes.append(len(left))
            if not left:
                break
        fooled = [n for n in left if walks[n].nearest is not None]
        ends = [next(asked) for _ in range(5 if fooled else 0)]
        assert all(len(points) == len(fooled) for points in ends)
        for row, n in enumerate(fooled):
            path, nearest[n] = walks[n].drawn_back()
            for ours, theirs in zip(ends, path, strict=True):
                torch.testing.assert_close(ours[row], theirs, rtol=0, atol=1e-7)
            if length(nearest[n] - net.x[n], "l2") <= epsilon:
                drawn_inside += 1
                torch.testing.assert_close(found[n], nearest[n], rtol=0, atol=1e-6)
                left.remove(n)
    assert next(asked, None) is None
    assert len(set(sizes)) > 2
    assert drawn_inside == (1 if one_by_one else 0)
    assert bool(left) is not one_by_one  # with none left it ends in the midst of a turn
    for n in left:
        delta = torch.zeros_like(net.x[n]) if nearest[n] is None else nearest[n] - net.x[n]
        expected = net.x[n] + delta * min(1, epsilon / max(float(delta.norm()), 1e-9))
        torch.testing.assert_close(found[n], expected, rtol=0, atol=1e-5)


def test_a_goal_that_names_the_class_is_one_plane_and_its_own_success():
    """Between the class to reach and the largest of the others."""
    net, threat = curved(sharpness=3.0, seed=2), threat_model("l2", 50.0, goal="targeted")
    target = torch.tensor([wrong_classes(net, n)[0] for n in range(len(net.x))])
    attack = FAB(steps=STEPS, early_stop=False)
    found = attack.run(net.classifier(), net.x, target, threat, generator=net.streams())
    assert len(net.asked) == 1 + 2 * STEPS + 5
    reached = 0
    for n, aim in enumerate(target.tolist()):
        one = Algorithm1(net, net.x[n], aim, "l2", [], goal="targeted")
        for ours, theirs in zip(net.asked[2 : 1 + 2 * STEPS : 2], one.path, strict=True):
            torch.testing.assert_close(ours[n], theirs, rtol=0, atol=1e-8)
        if one.nearest is not None:
            reached += 1
            torch.testing.assert_close(found[n], one.drawn_back()[1], rtol=0, atol=1e-6)
    assert 0 < reached < len(net.x)


def test_it_says_what_it_is_and_who_cannot_count_pixels():
    assert FAB().describe() == "FAB-100, all classes"
    assert FAB(steps=7, targets=3, one_by_one=True).describe() == "FAB-T-7, 3 classes"
    assert (FAB(steps=7).cost(5).forwards, FAB(steps=7).cost(5).estimates) == (1 + 12, 4 * 7)
    cost = FAB(steps=7, targets=3, one_by_one=True, restarts=2).cost(10)
    assert (cost.forwards, cost.estimates) == (1 + 2 * 3 * 12, 2 * 3 * 7)
    assert FAB(steps=7, targets=9).cost(3).estimates == 2 * 7
    net = curved()
    with pytest.raises(Unsupported, match=r"^`FAB` "):
        FAB(steps=1).run(net.classifier(), net.x, net.y, threat_model("l0", 1), generator=net.streams())
