"""SparsePGD step by step on a curved network in float64, written a second time, one image at a time."""

from itertools import product

import pytest
import torch
from tests.attacks.curved import SIDE, curved, follows, value_and_slope
from tests.attacks.test_apgd import margin_loss_of

from unmask.attacks import SparsePGD
from unmask.errors import Unsupported
from unmask.objectives import margin_loss
from unmask.threat import threat_model

CHANNELS, STEPS = 2, 24
BUDGET = {"l0": 3, "l0-elements": 4, "patch": 2}


def problem():
    return curved(channels=CHANNELS, sharpness=3.0, seed=3)


def counted(values, norm):
    """What counts as one: an element, or a pixel with all its channels."""
    return values if norm == "l0-elements" else values.sum(0)


def best_set(scores, norm):
    """The allowed set of the largest total, by trying all patches, or of the largest scores."""
    if norm == "patch":
        k, best, most = BUDGET[norm], None, -torch.inf
        for top, left in product(range(SIDE - BUDGET[norm] + 1), repeat=2):
            total = float(scores[top : top + k, left : left + k].sum())
            if total > most + 1e-12:
                best, most = (top, left), total
        mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        mask[best[0] : best[0] + k, best[1] : best[1] + k] = True
        return mask.expand(CHANNELS, SIDE, SIDE)
    chosen = scores.flatten().argsort(descending=True, stable=True)[: BUDGET[norm]]
    mask = torch.zeros(scores.numel(), dtype=torch.bool)
    mask[chosen] = True
    return mask.reshape(scores.shape).expand(CHANNELS, SIDE, SIDE)


class Ascent:
    """`path`: the points asked. `best`: of the largest margin loss. `fresh`: times a support that stayed gave way."""

    def __init__(self, net, n, norm, streams, *, projected=False, steps=STEPS):
        x, y, self.path, self.fresh = net.x[n], int(net.y[n]), [], 0
        threat = threat_model(norm, BUDGET[norm])
        one = streams[n : n + 1]
        shown = one.uniform(CHANNELS, SIDE, SIDE)[0].double()

        def held(number):
            mask = threat.random_support(net.x[n : n + 1], generator=one.fork(f"support {number}"))[0]
            mask = mask.expand(CHANNELS, SIDE, SIDE).double()
            return mask if norm == "l0-elements" else mask[0]

        scores, stayed = held(0), 0
        mask, self.best, self.most = best_set(scores, norm), x, -torch.inf
        for step in range(steps + 1):
            point = torch.where(mask, shown, x)
            self.path.append(point)
            value, slope = value_and_slope(margin_loss_of(net, y), point)
            if value > self.most:
                self.best, self.most = point, value
            if step == steps:
                return
            worth = counted(slope * (shown - x), norm)
            scores = 0.75 * scores + 0.25 * worth.numel() ** 0.5 * worth / worth.norm()
            shown = (shown + 0.25 * (slope * mask if projected else slope).sign()).clamp(0, 1)
            new = best_set(scores, norm)
            stayed = stayed + 1 if torch.equal(new, mask) else 0
            if stayed >= 3:
                scores, stayed, self.fresh = held(step + 1), 0, self.fresh + 1
                new = best_set(scores, norm)
            mask = new


@pytest.mark.parametrize("norm", list(BUDGET))
def test_every_step_of_either_gradient_and_the_best_of_all(norm):
    """Every other start moves all values, those between them the values that show."""
    net, threat, starts, length = problem(), threat_model(norm, BUDGET[norm]), 4, STEPS + 1
    attack = SparsePGD(steps=STEPS, restarts=starts, objective=margin_loss, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    assert len(net.asked) == starts * length
    fresh = 0
    for n in range(len(net.x)):
        streams, walks = net.streams(), []
        for start in range(starts):
            walks.append(Ascent(net, n, norm, streams, projected=start in (1, 3)))
            follows(net.asked[start * length : (start + 1) * length], n, walks[-1].path)
            streams = streams.fork("restart")  # numbers are named by where the start before ended
        torch.testing.assert_close(found[n], max(walks, key=lambda one: one.most).best)
        fresh += sum(walk.fresh for walk in walks)
    assert fresh > 0


@pytest.mark.parametrize("norm", list(BUDGET))
def test_who_is_fooled_leaves_and_the_others_walk_on(norm):
    net, threat = problem(), threat_model(norm, BUDGET[norm])
    attack = SparsePGD(steps=STEPS, objective=margin_loss)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    walks = {n: Ascent(net, n, norm, net.streams()) for n in range(len(net.x))}
    left = list(walks)
    for step, points in enumerate(net.asked):
        assert len(points) == len(left)
        for row, n in enumerate(list(left)):
            torch.testing.assert_close(points[row], walks[n].path[step], rtol=0, atol=1e-9)
            if int(net.logits(points[row]).argmax()) != int(net.y[n]):
                torch.testing.assert_close(found[n], points[row])
                left.remove(n)
    assert len(left) < len(walks)
    for n in left:
        torch.testing.assert_close(found[n], walks[n].best)


def test_where_nothing_slopes_it_goes_on_from_support_to_support():
    """No slope, no push: the scores only fade, and every third step brings another support."""
    net = problem()
    flat = type(net)(lambda x: 0 * net.layers(x) + torch.eye(4).double()[0], net.x, 0 * net.y)
    SparsePGD(steps=9, objective=margin_loss, early_stop=False).run(
        flat.classifier(), flat.x, flat.y, threat_model("l0", 3), generator=flat.streams()
    )
    changed = [(points != flat.x).any(1).flatten(1) for points in flat.asked]
    for step in range(1, 10):
        same = (changed[step] == changed[step - 1]).all(1)
        assert bool(same.all()) is (step % 3 != 0), step


def test_it_says_what_it_is_and_that_balls_are_for_another():
    assert SparsePGD(steps=7).describe() == "sparse PGD-7"
    assert SparsePGD(steps=7, restarts=2).describe() == "sparse PGD-7, 2 restarts"
    assert SparsePGD(steps=7, restarts=2).cost(3).estimates == 16
    net = problem()
    with pytest.raises(Unsupported, match="the threat model is l2; use `APGD`"):
        SparsePGD().run(net.classifier(), net.x, net.y, threat_model("l2", 1.0), generator=net.streams())
