"""JointPGD step by step on a curved network beside a curved detector, written a second time, one image at a time."""

import math

import pytest
import torch
from tests.attacks.curved import SIDE, Asked, curved, follows, leaves_once_it_fools, project, value_and_slope

from unmask.attacks import JointPGD, Setting
from unmask.attacks.joint_pgd import Acceptance, Pending
from unmask.errors import Unsupported
from unmask.gradients import Exact
from unmask.objectives import Targeted, Towards, margin_loss
from unmask.threat import threat_model
from unmask.types import Outputs

EPSILON = {"linf": 0.3, "l2": 1.0, "l1": 2.5}
STEPS, SHARE = 16, 0.25


class Guarded:
    """The curved network beside a detector that rejects what is far from a picture of its own."""

    def __init__(self):
        self.net = curved(sharpness=3.0, seed=2)
        rng = torch.Generator().manual_seed(9)
        x = torch.rand(40, 1, SIDE, SIDE, generator=rng).double()
        self.net.layers[-1].bias -= self.net.layers(x).mean(0)  # no class is larger than another on average
        self.x, self.y = self.net.x, self.net.layers(self.net.x).argmax(1)
        self.weight = torch.rand(SIDE, SIDE, generator=rng).double()
        self.picture = torch.rand(SIDE, SIDE, generator=rng).double()
        self.asked = []

    def score(self, point):
        return (self.weight * (point - self.picture).square()).sum((-3, -2, -1)) - 0.85

    def classifier(self):
        def network(x):
            self.asked.append(x.detach().clone())
            return Outputs(self.net.layers(x), self.score(x))

        return Asked(network, deterministic=True)

    def run(self, attack, norm, goal="untargeted", y=None):
        threat = threat_model(norm, EPSILON[norm], goal=goal)
        y = self.y if y is None else y
        return attack.run(self.classifier(), self.x, y, threat, generator=self.net.streams())


def margin_of(net, y):
    def objective(point):
        logits = net.logits(point)
        return torch.cat([logits[:y], logits[y + 1 :]]).max() - logits[y]

    return objective


def towards(net, target, y):
    return lambda point: net.logits(point)[target] - net.logits(point)[y]


class Ascent:
    """`path`: the points asked. `best`: of most worth. `fools`: the step that is wrong and passes. `seen`: cases."""

    def __init__(self, guarded, n, wrong, start, norm, rule):
        x, point, self.path, self.fools, self.seen = guarded.x[n], start, [], None, set()
        self.best, self.most = x, -torch.inf
        for step in range(STEPS + 1):
            self.path.append(point)
            has_class, to_class = value_and_slope(wrong, point)
            has_passed, to_pass = value_and_slope(lambda z: -guarded.score(z), point)
            worth = min(has_class, 0) + (math.exp(min(has_passed, 0)) if has_class > 0 else 0)
            if worth > self.most:
                self.best, self.most = point, worth
            is_wrong = int(guarded.net.logits(point).argmax()) != int(guarded.y[n])
            if is_wrong and has_passed >= 0 and self.fools is None:
                self.fools = step
            self.seen.add((has_class > 0, has_passed > 0))
            along, across = (to_pass, to_class) if has_class > 0 else (to_class, to_pass)
            if rule == "orthogonal":
                along = along - (along * across).sum() / across.square().sum() * across
            steepest = math.sqrt(int((along != 0).sum())) if norm == "linf" else 1.0
            size = SHARE * EPSILON[norm] * (1 - 0.9 * step / STEPS)
            point = project(point + size * steepest * along / along.norm(), x, norm, EPSILON[norm])


def attack(**options):
    return JointPGD(steps=STEPS, rel_step_size=SHARE, **options)


@pytest.mark.parametrize("rule", ["selective", "orthogonal"])
@pytest.mark.parametrize("norm", list(EPSILON))
def test_every_step_follows_what_is_not_reached_yet(norm, rule):
    guarded = Guarded()
    found = guarded.run(attack(rule=rule, early_stop=False), norm)
    each = 2 if rule == "orthogonal" else 1
    assert len(guarded.asked) == each * (STEPS + 1)
    if each == 2:
        assert all(torch.equal(*guarded.asked[k : k + 2]) for k in range(0, len(guarded.asked), 2))
    seen = set()
    for n in range(len(guarded.x)):
        one = Ascent(guarded, n, margin_of(guarded.net, int(guarded.y[n])), guarded.x[n], norm, rule)
        follows(guarded.asked[::each], n, one.path)
        torch.testing.assert_close(found[n], one.best, rtol=0, atol=1e-6)
        seen |= one.seen
    assert {(False, False), (True, False), (True, True)} <= seen


@pytest.mark.parametrize("rule", ["selective", "orthogonal"])
def test_who_fools_both_leaves_and_the_others_walk_on(rule):
    guarded = Guarded()
    found = guarded.run(attack(rule=rule), "linf")
    walks = {
        n: Ascent(guarded, n, margin_of(guarded.net, int(guarded.y[n])), guarded.x[n], "linf", rule)
        for n in range(len(guarded.x))
    }
    leaves_once_it_fools(guarded.asked[:: 2 if rule == "orthogonal" else 1], walks, found)


def test_the_likeliest_classes_one_after_another_and_the_best_of_all():
    guarded = Guarded()
    found = guarded.run(attack(targets=2, early_stop=False), "l2")
    assert len(guarded.asked) == 1 + 2 * (STEPS + 1)
    for n, y in enumerate(guarded.y.tolist()):
        ranked = [k for k in guarded.net.logits(guarded.x[n]).argsort(descending=True).tolist() if k != y]
        walks = []
        for turn, target in enumerate(ranked[:2]):
            wrong = towards(guarded.net, target, y)
            walks.append(Ascent(guarded, n, wrong, guarded.x[n], "l2", "selective"))
            begin = 1 + turn * (STEPS + 1)
            follows(guarded.asked[begin : begin + STEPS + 1], n, walks[-1].path)
        torch.testing.assert_close(found[n], max(walks, key=lambda w: w.most).best, rtol=0, atol=1e-6)


def test_who_passes_is_left_out_of_the_next_class():
    guarded = Guarded()
    guarded.run(attack(targets=9), "linf")
    left, asked = list(range(len(guarded.x))), iter(guarded.asked[1:])
    sizes = []
    for turn in range(3):
        sizes.append(len(left))
        walks = {}
        for n in left:
            y = int(guarded.y[n])
            ranked = [k for k in guarded.net.logits(guarded.x[n]).argsort(descending=True).tolist() if k != y]
            wrong = towards(guarded.net, ranked[turn], y)
            walks[n] = Ascent(guarded, n, wrong, guarded.x[n], "linf", "selective")
        for step in range(STEPS + 1):
            if not left:
                break
            points = next(asked)
            assert len(points) == len(left)
            for row, n in enumerate(list(left)):
                torch.testing.assert_close(points[row], walks[n].path[step], rtol=0, atol=1e-9)
                if walks[n].fools == step:
                    left.remove(n)
    assert next(asked, None) is None
    assert sizes[0] > sizes[1] > 0


def test_a_random_start_is_the_threat_models_own():
    guarded = Guarded()
    guarded.run(attack(random_start=True, early_stop=False), "l2")
    start = threat_model("l2", EPSILON["l2"]).random_start(guarded.x, generator=guarded.net.streams())
    for n, y in enumerate(guarded.y.tolist()):
        one = Ascent(guarded, n, margin_of(guarded.net, y), start[n], "l2", "selective")
        follows(guarded.asked, n, one.path, 1e-6)


def test_a_goal_that_names_the_class_pulls_towards_it():
    guarded = Guarded()
    target = (guarded.y + 1) % 4
    guarded.run(attack(early_stop=False), "l2", "targeted", target)
    for n, aim in enumerate(target.tolist()):
        wrong = margin_of(guarded.net, aim)
        one = Ascent(guarded, n, lambda z, wrong=wrong: -wrong(z), guarded.x[n], "l2", "selective")
        follows(guarded.asked, n, one.path)


def test_without_a_detector_nothing_objects():
    outputs = Outputs(torch.tensor([[1.0, 2.0], [3.0, 1.0]]))
    assert Acceptance()(outputs, torch.tensor([0, 0])).tolist() == [0.0, 0.0]
    assert Acceptance().for_goal("targeted") == Acceptance()
    guarded = Outputs(outputs.logits, torch.tensor([0.5, -2.0]))
    assert Acceptance()(guarded, torch.tensor([0, 0])).tolist() == [-0.5, 2.0]
    pending = Pending(Targeted(torch.tensor([1, 1])), Acceptance())
    assert pending(guarded, torch.tensor([0, 0])).tolist() == [-0.5, -2.0]  # reached, and not yet
    part = pending.take(torch.tensor([1]))
    assert part.first.targets.tolist() == [1]
    both = Pending(Acceptance(), Targeted(torch.tensor([1, 0]))).take(torch.tensor([1]))
    assert both.second.targets.tolist() == [0]
    # What is not positive is not reached: zero counts as open.
    tie = Outputs(torch.tensor([[1.0, 1.0]]), torch.tensor([3.0]))
    assert Pending(margin_loss, Acceptance())(tie, torch.tensor([0])).tolist() == [0.0]
    assert Pending(Towards(margin_loss), Acceptance())(tie, torch.tensor([0])).tolist() == [0.0]


def test_it_fits_itself_and_says_what_it_is():
    gradient = Exact()
    assert JointPGD().fit(Setting(detector=False)) is None
    assert JointPGD(targets=3).fit(Setting(detector=True, classes=2)) is None
    fitted = JointPGD().fit(Setting(detector=True, classes=2, random=True, gradient=gradient))
    assert (fitted.targets, fitted.early_stop, fitted.gradient) == (0, False, gradient)
    fewer = JointPGD(targets=9).fit(Setting(detector=True, classes=3))
    assert (fewer.targets, fewer.early_stop) == (2, True)
    assert JointPGD(steps=7).describe() == "joint PGD-7, selective"
    assert JointPGD(steps=7, rule="orthogonal", targets=2).describe() == "joint PGD-7, orthogonal, 2 classes"
    cost = JointPGD(steps=7, targets=9).cost(4)
    assert (cost.forwards, cost.estimates) == (1, 3 * 8)
    cost = JointPGD(steps=7, rule="orthogonal").cost(4)
    assert (cost.forwards, cost.estimates) == (0, 2 * 8)
    net = curved()
    with pytest.raises(Unsupported, match=r"^`JointPGD` "):
        JointPGD().run(net.classifier(), net.x, net.y, threat_model("l0", 1), generator=net.streams())
    with pytest.raises(Unsupported, match="under a targeted goal use targets=0"):
        JointPGD(targets=1).run(
            net.classifier(), net.x, net.y, threat_model("l2", 1.0, goal="targeted"), generator=net.streams()
        )
