"""FeatureMatching step by step: its guide, its slope, its steps, and what it returns, written a second time."""

import pytest
import torch
from tests.attacks.curved import SIDE, Asked, curved, follows, leaves_once_it_fools, project

from unmask.attacks import FeatureMatching
from unmask.errors import Unsupported
from unmask.threat import threat_model

EPSILON = {"linf": 0.15, "l2": 1.2, "l1": 1.5}
STEPS, SHARE = 12, 0.3


class Hidden:
    """The curved network, its first layer as features, and images of every class."""

    def __init__(self):
        self.net = curved(sharpness=3.0, seed=2)
        self.guides = torch.rand(30, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(9)).double()
        self.net.layers[-1].bias -= self.net.layers(self.guides).mean(0)
        self.x, self.y = self.net.x, self.net.layers(self.net.x).argmax(1)
        self.classes = self.net.layers(self.guides).argmax(1)
        self.matched = []  # points at which features were asked

    def features(self, x):
        self.matched.append(x.detach().clone())
        return self.hidden(x)

    def hidden(self, x):
        return self.net.layers[:3](x).reshape(len(x), 3, 4)

    def guide_of(self, n, wanted=None):
        """The nearest of a class that is not the label, or is `wanted`."""
        gaps = (self.hidden(self.guides) - self.hidden(self.x[n][None])).flatten(1).norm(dim=1)
        usable = self.classes != self.y[n] if wanted is None else self.classes == wanted
        return self.hidden(self.guides)[int(gaps.masked_fill(~usable, torch.inf).argmin())]

    def run(self, norm, goal="untargeted", y=None, **options):
        attack = FeatureMatching(
            features=self.features, guides=self.guides, steps=STEPS, rel_step_size=SHARE, **options
        )
        threat = threat_model(norm, EPSILON[norm], goal=goal)
        classifier = self.net.classifier()
        y = self.y if y is None else y
        return attack.run(classifier, self.x, y, threat, generator=self.net.streams()), classifier.meter


class Descent:
    """`path`: the points asked; `best`: the nearest to its guide; `fools`: the first step that does."""

    def __init__(self, one, n, norm, wanted=None):
        x, goal, self.path, self.fools = one.x[n], one.guide_of(n, wanted), [], None
        point, self.best, least = x, x, torch.inf
        for step in range(STEPS + 1):
            self.path.append(point)
            at = point.clone().requires_grad_()
            gap = (one.hidden(at[None])[0] - goal).square().sum()
            (slope,) = torch.autograd.grad(gap, at)
            if float(gap.detach()) < least:
                self.best, least = point, float(gap.detach())
            said = int(one.net.logits(point).argmax())
            if self.fools is None and (said != int(one.y[n]) if wanted is None else said == wanted):
                self.fools = step
            if norm == "linf":
                direction = -slope.sign()
            elif norm == "l2":
                direction = -slope / slope.norm()
            else:
                direction = torch.where(slope.abs() == slope.abs().max(), -slope.sign(), 0.0)
            size = SHARE * EPSILON[norm] * (1 - 0.9 * step / STEPS)
            point = project(point + size * direction, x, norm, EPSILON[norm])


@pytest.mark.parametrize("norm", list(EPSILON))
def test_every_step_goes_towards_the_nearest_guide_of_another_class(norm):
    one = Hidden()
    found, meter = one.run(norm, early_stop=False)
    assert len(one.classes.unique()) == 4
    asked = one.net.asked[1:]  # the guides first
    torch.testing.assert_close(one.net.asked[0], one.guides, rtol=0, atol=0)
    assert (meter.forwards, meter.backwards) == (30 + 30 + 6 + 2 * 6 * (STEPS + 1), 6 * (STEPS + 1))
    inner = 0
    for n in range(len(one.x)):
        walk = Descent(one, n, norm)
        follows(asked, n, walk.path)
        follows(one.matched[2:], n, walk.path)
        torch.testing.assert_close(found[n], walk.best, rtol=0, atol=1e-6)
        inner += not torch.equal(walk.best, walk.path[-1])
    assert inner > 0 or norm == "linf"  # the nearest is not always the last


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_who_fools_leaves_and_the_others_walk_on(goal):
    one = Hidden()
    target = (one.y + 1) % 4
    found, _ = one.run("linf", goal, target if goal == "targeted" else None)
    walks = {
        n: Descent(one, n, "linf", int(target[n]) if goal == "targeted" else None) for n in range(len(one.x))
    }
    leaves_once_it_fools(one.net.asked[1:], walks, found)


def test_a_batch_that_is_fooled_altogether_ends_the_walk():
    one = Hidden()
    classifier = Asked(lambda x: one.net.layers(x).roll(1, 1), deterministic=True)
    attack = FeatureMatching(features=one.features, guides=one.guides, steps=STEPS)
    x_adv = attack.run(classifier, one.x, one.y, threat_model("linf", 0.1), generator=one.net.streams())
    assert torch.equal(x_adv, one.x)
    assert classifier.meter.forwards == 30 + 30 + 6 + 2 * 6


def test_it_declares_its_cost_and_says_who_cannot_count_pixels():
    one = Hidden()
    attack = FeatureMatching(features=one.features, guides=one.guides, steps=7)
    assert (attack.cost(4).forwards, attack.cost(4).estimates) == (3 + 7 + 30, 8)
    with pytest.raises(Unsupported, match=r"^`FeatureMatching` "):
        attack.run(one.net.classifier(), one.x, one.y, threat_model("l0", 1), generator=one.net.streams())
