"""PGD step by step, written a second time on a curved network in float64."""

import pytest
import torch
from tests.attacks.curved import curved, follows, project, value_and_slope
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import PGD
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.gradients import Exact
from unmask.objectives import margin_loss
from unmask.threat import threat_model

EPSILON = {"linf": 0.2, "l2": 0.8, "l1": 2.0}
STEPS, SHARE = 9, 0.3


def ascent(net, n, start, norm, steps=STEPS):
    """One image: the points asked, and of them the one of largest margin loss."""
    point, path, best, most = start, [], start, -torch.inf
    for _ in range(steps + 1):
        path.append(point)
        value, slope = value_and_slope(margin_loss_of(net, int(net.y[n])), point)
        if value > most:
            best, most = point, value
        if norm == "linf":
            direction = slope.sign()
        elif norm == "l2":
            direction = slope / slope.norm()
        else:
            direction = torch.where(slope.abs() == slope.abs().max(), slope.sign(), 0.0)
        point = project(point + SHARE * EPSILON[norm] * direction, net.x[n], norm, EPSILON[norm])
    return path, best, most


def attack(**options):
    return PGD(
        **{"steps": STEPS, "rel_step_size": SHARE, "objective": margin_loss, "early_stop": False} | options
    )


def run(net, one, norm):
    threat = threat_model(norm, EPSILON[norm])
    return one.run(net.classifier(), net.x, net.y, threat, generator=net.streams())


@pytest.mark.parametrize("norm", list(EPSILON))
def test_every_step_and_the_best_of_them(norm):
    net = curved(seed=2)
    found = run(net, attack(), norm)
    assert not torch.equal(net.asked[0], net.x)
    inner = 0
    for n in range(len(net.x)):
        path, best, _ = ascent(net, n, net.asked[0][n], norm)
        follows(net.asked, n, path)
        torch.testing.assert_close(found[n], best, rtol=0, atol=1e-6)
        inner += not torch.equal(best, path[-1])
    assert inner > 0  # the best is not always the last


def test_the_last_iterate_of_the_paper_is_not_asked_about():
    net = curved(seed=2)
    found = run(net, attack(last=True), "linf")
    assert len(net.asked) == STEPS
    for n in range(len(net.x)):
        path, _, _ = ascent(net, n, net.asked[0][n], "linf")
        follows(net.asked, n, path[:-1])
        torch.testing.assert_close(found[n], path[-1], rtol=0, atol=1e-6)


def test_without_a_random_start_it_starts_at_the_image():
    net = curved(seed=2)
    run(net, attack(random_start=False), "l2")
    for n in range(len(net.x)):
        follows(net.asked, n, ascent(net, n, net.x[n], "l2")[0])


def test_restarts_start_elsewhere_and_the_best_of_all_is_kept():
    net = curved(seed=2)
    found = run(net, attack(restarts=3, steps=4), "l2")
    starts = net.asked[::5]
    assert len(net.asked) == 15
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])
    for n in range(len(net.x)):
        ends = [ascent(net, n, start[n], "l2", 4)[1:] for start in starts]
        torch.testing.assert_close(found[n], max(ends, key=lambda end: end[1])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("last", [False, True])
def test_who_is_fooled_leaves_and_the_others_walk_on(last):
    net = curved(seed=2)
    found = run(net, attack(early_stop=True, last=last), "linf")
    left = list(range(len(net.x)))
    paths = {n: ascent(net, n, net.asked[0][n], "linf") for n in left}
    for step, points in enumerate(net.asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], paths[n][0][step], rtol=0, atol=1e-9)
            if int(net.logits(points[row]).argmax()) != int(net.y[n]):
                torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                left.remove(n)
    assert len(net.asked) == STEPS + 1 - last
    assert 0 < len(left) < len(net.x)
    for n in left:
        torch.testing.assert_close(found[n], paths[n][0][-1] if last else paths[n][1], rtol=0, atol=1e-6)


def test_the_slope_of_the_last_point_is_not_asked_for():
    net = curved(seed=2)
    classifier = net.classifier()
    attack().run(classifier, net.x, net.y, threat_model("linf", 0.1), generator=net.streams())
    assert classifier.meter.backwards == STEPS * len(net.x)
    asked = []

    class Watched(Exact):
        def estimate(self, *args, **others):
            asked.append("estimate")
            return super().estimate(*args, **others)

        def scored(self, *args, **others):
            asked.append("scored")
            return super().scored(*args, **others)

    run(net, attack(gradient=Watched()), "linf")
    assert asked == ["estimate"] * STEPS + ["scored"]


def test_it_says_what_it_is_and_who_cannot_count_pixels():
    assert PGD(steps=7).describe() == "PGD-7"
    assert PGD(steps=7, restarts=2).describe() == "PGD-7, 2 restarts"
    net = curved()
    with pytest.raises(Unsupported, match=r"^`PGD` "):
        PGD(steps=1).run(Classifier(net.layers), net.x, net.y, threat_model("l0", 1), generator=net.streams())
