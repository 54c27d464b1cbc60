"""APGD step by step against algorithm 1 of Croce & Hein 2020, on a curved network in float64."""

import pytest
import torch
from tests.attacks.curved import Curved, curved, follows, project, value_and_slope

from unmask.attacks import APGD
from unmask.attacks.apgd import _checkpoints
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.objectives import margin_loss
from unmask.threat import threat_model

STEPS = 60
EPSILON = {"linf": 0.25, "l2": 0.9}
SHARPNESS = {"linf": 6.0, "l2": 2.0}  # chosen, with the seed, so that no branch hangs on a tie of two values


def problem(norm: str) -> Curved:
    return curved(sharpness=SHARPNESS[norm], seed=2)


def margin_loss_of(net: Curved, y: int):
    def objective(point):
        logits = net.logits(point)
        return torch.cat([logits[:y], logits[y + 1 :]]).max() - logits[y]

    return objective


def marks_of(steps: int) -> list[int]:
    """Section 3.1: w_j = ceil(p_j N), p_0 = 0, p_1 = 0.22, p_(j+1) = p_j + max(p_j - p_(j-1) - 0.03, 0.06)."""
    hundredths = [0, 22]
    while hundredths[-1] < 100:
        hundredths.append(hundredths[-1] + max(hundredths[-1] - hundredths[-2] - 3, 6))
    return [-(-p * steps // 100) for p in hundredths[1:] if p < 100]


class Algorithm1:
    """One example from one start. `path` are the points asked, `halvings` and `returns` the times a step was halved
    and those at which that moved the search back to its best point."""

    def __init__(self, net, x, y, start, norm, epsilon, steps, rho=0.75, objective=None):
        objective = objective or margin_loss_of(net, y)

        def ascent(slope):
            if norm == "linf":
                return slope.sign()
            return slope / slope.norm()

        eta, marks = 2 * epsilon, [0, *marks_of(steps)]
        self.path, self.halvings, self.returns = [start], 0, 0
        self.conditions = set()
        value, slope = value_and_slope(objective, start)
        best, best_value, best_slope = start, value, slope
        values = [value]  # f(x^(i)) as the search stood: after a return, that of the best point
        previous, current = start, start
        best_at_mark, halved_at_mark = best_value, False
        for k in range(steps):
            if k in marks[1:]:
                last = marks[marks.index(k) - 1]
                rises = sum(values[i + 1] > values[i] for i in range(last, k))
                first = rises < rho * (k - last)
                second = not halved_at_mark and best_value == best_at_mark
                self.conditions |= {1} if first else set()
                self.conditions |= {2} if second and not first else set()
                halved_at_mark, best_at_mark = first or second, best_value
                if halved_at_mark:
                    self.halvings += 1
                    self.returns += not torch.equal(current, best)
                    eta, current, slope = eta / 2, best, best_slope
                    values[k] = best_value
            z = project(current + eta * ascent(slope), x, norm, epsilon)
            alpha = 0.75 if k else 1.0
            new = project(
                current + alpha * (z - current) + (1 - alpha) * (current - previous), x, norm, epsilon
            )
            previous, current = current, new
            value, slope = value_and_slope(objective, current)
            self.path.append(current)
            values.append(value)
            if value > best_value:
                best, best_value, best_slope = current, value, slope
        self.best, self.best_value = best, best_value


@pytest.mark.parametrize("steps", [5, 10, 20, 50, 60, 100, 500])
def test_checkpoints(steps):
    assert _checkpoints(steps) == marks_of(steps)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_every_step_is_that_of_algorithm_1(norm):
    net, threat = problem(norm), threat_model(norm, EPSILON[norm])
    attack = APGD(steps=STEPS, objective=margin_loss, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    halvings = returns = 0
    conditions: set[int] = set()
    for n in range(len(net.x)):
        one = Algorithm1(net, net.x[n], int(net.y[n]), net.asked[0][n], norm, EPSILON[norm], STEPS)
        follows(net.asked, n, one.path)
        torch.testing.assert_close(found[n], one.best, rtol=0, atol=1e-9)
        halvings, returns = halvings + one.halvings, returns + one.returns
        conditions |= one.conditions
    # The examples are hard enough to tell: either condition halves, halving returns, and not every mark halves.
    assert conditions == ({1, 2} if norm == "l2" else {1})
    assert returns > len(net.x)
    assert halvings < len(net.x) * len(marks_of(STEPS))


@pytest.mark.parametrize("steps", [10, 22, 36])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_few_steps_between_checkpoints(norm, steps):
    """Where exactly three of four must rise, and where of the first three updates every one must."""
    net, threat = problem(norm), threat_model(norm, EPSILON[norm])
    attack = APGD(steps=steps, objective=margin_loss, early_stop=False)
    attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    for n in range(len(net.x)):
        one = Algorithm1(net, net.x[n], int(net.y[n]), net.asked[0][n], norm, EPSILON[norm], steps)
        follows(net.asked, n, one.path)


def test_a_best_point_that_stands_halves_at_every_other_checkpoint():
    """Without the first condition only the second halves: not twice in a row, so that a step can show its worth."""
    net, threat = problem("l2"), threat_model("l2", EPSILON["l2"])
    attack = APGD(steps=STEPS, rho=0.0, objective=margin_loss, early_stop=False)
    attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    for n in range(len(net.x)):
        one = Algorithm1(net, net.x[n], int(net.y[n]), net.asked[0][n], "l2", EPSILON["l2"], STEPS, rho=0.0)
        follows(net.asked, n, one.path)


def test_restarts_keep_the_best_of_all():
    net, threat = problem("l2"), threat_model("l2", 0.9)
    attack = APGD(steps=6, restarts=3, objective=margin_loss, early_stop=False)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    starts = [net.asked[7 * k] for k in range(3)]
    assert not torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[1], starts[2])
    assert len(net.asked) == 21
    for n, y in enumerate(net.y.tolist()):
        ends = [Algorithm1(net, net.x[n], y, start[n], "l2", 0.9, 6).best for start in starts]
        best = max(float(margin_loss_of(net, y)(end)) for end in ends)
        assert float(margin_loss_of(net, y)(found[n])) == pytest.approx(best, abs=1e-9)


def test_who_is_fooled_leaves_and_the_others_walk_on():
    """With and without early stop an example walks the same path, until it is fooled."""
    for norm, epsilon in EPSILON.items():
        net, threat = problem(norm), threat_model(norm, epsilon)
        attack = APGD(steps=STEPS, objective=margin_loss)
        found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
        left = list(range(len(net.x)))
        start = net.asked[0]
        paths = [
            Algorithm1(net, net.x[n], int(net.y[n]), start[n], norm, epsilon, STEPS)
            for n in range(len(net.x))
        ]
        for step, points in enumerate(net.asked):
            assert len(points) == len(left)
            for row, n in enumerate(left):
                torch.testing.assert_close(points[row], paths[n].path[step], rtol=0, atol=1e-9)
            wrong = [n for n in left if float(margin_loss_of(net, int(net.y[n]))(paths[n].path[step])) > 0]
            for n in wrong:
                torch.testing.assert_close(found[n], paths[n].path[step], rtol=0, atol=1e-6)
            left = [n for n in left if n not in wrong]
        assert len(net.asked) == STEPS + 1 or not left
        for n in left:
            torch.testing.assert_close(found[n], paths[n].best, rtol=0, atol=1e-6)


def test_a_targeted_goal_climbs_towards_the_target():
    """Towards the class to reach, not away from the label: with two steps on a linear network the signs say which."""
    w = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    classifier = Classifier(lambda x: x.flatten(1) @ w.T, deterministic=True)
    x, target = torch.full((2, 1, 2, 2), 0.5), torch.tensor([1, 2])
    attack = APGD(steps=10, objective=margin_loss, early_stop=False)
    threat = threat_model("linf", 0.1, goal="targeted")
    x_adv = attack.run(classifier, x, target, threat, generator=torch.Generator().manual_seed(0))
    assert classifier(x_adv, generator=torch.Generator()).logits.argmax(1).tolist() == target.tolist()
    moved = (x_adv - x).flatten(1)[torch.arange(2), target]
    torch.testing.assert_close(moved, torch.full((2,), 0.1))


def test_it_says_who_cannot_count_pixels():
    classifier = Classifier(lambda x: x.flatten(1)[:, :2])
    with pytest.raises(Unsupported, match="`APGD`"):
        APGD(steps=1).run(
            classifier, torch.zeros(1, 1, 2, 2), torch.zeros(1, dtype=torch.int64), threat_model("l0", 1),
            generator=torch.Generator(),
        )  # fmt: skip
