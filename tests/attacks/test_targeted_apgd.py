"""APGD towards one class after another: which classes, in which order, by which objective, and who goes on."""

import pytest
import torch
from tests.attacks.curved import curved, follows
from tests.attacks.test_apgd import EPSILON, Algorithm1
from tests.attacks.test_apgd import problem as problem_of

from unmask.attacks import Setting, TargetedAPGD
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.gradients import Exact
from unmask.objectives import Targeted, TargetedDLR
from unmask.threat import threat_model

STEPS = 25


def plain_of(net, y, target):
    def objective(point):
        logits = net.logits(point)
        return logits[target] - logits[y]

    return objective


def ratio_of(net, y, target):
    """Equation 7 of Croce & Hein 2020: over the largest less the mean of the third and the fourth."""

    def objective(point):
        logits = net.logits(point)
        ranked = logits.sort(descending=True).values
        return (logits[target] - logits[y]) / (ranked[0] - (ranked[2] + ranked[3]) / 2)

    return objective


def likeliest(net, n):
    """The wrong classes of an image, from the largest logit down."""
    ranked = net.logits(net.x[n]).argsort(descending=True).tolist()
    return [k for k in ranked if k != int(net.y[n])]


@pytest.mark.parametrize(
    ("objective", "reference", "options"),
    [(TargetedDLR(), ratio_of, {}), (Targeted(), plain_of, {"objective": Targeted(), "rho": 0.3})],
)
def test_each_class_in_turn_is_a_run_of_algorithm_1_and_the_best_of_all_is_kept(
    objective, reference, options
):
    net, threat = problem_of("linf"), threat_model("linf", EPSILON["linf"])
    attack = TargetedAPGD(steps=STEPS, targets=2, early_stop=False, **options)
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    assert len(net.asked) == 1 + 2 * (STEPS + 1)
    torch.testing.assert_close(net.asked[0], net.x, rtol=0, atol=0)
    starts = [net.asked[1], net.asked[2 + STEPS]]
    assert not torch.equal(*starts)
    for n, y in enumerate(net.y.tolist()):
        ends = []
        for turn, target in enumerate(likeliest(net, n)[:2]):
            one = Algorithm1(
                net, net.x[n], y, starts[turn][n], "linf", EPSILON["linf"], STEPS, options.get("rho", 0.75),
                reference(net, y, target),
            )  # fmt: skip
            begin = 1 + turn * (STEPS + 1)
            follows(net.asked[begin : begin + STEPS + 1], n, one.path)
            ends.append((one.best_value, one.best))
        torch.testing.assert_close(found[n], max(ends, key=lambda pair: pair[0])[1], rtol=0, atol=1e-6)


def test_who_is_fooled_is_left_out_of_the_next_class_and_the_others_aim_at_their_own():
    net, threat = problem_of("linf"), threat_model("linf", 0.15)
    attack = TargetedAPGD(steps=STEPS, objective=Targeted())  # more classes than there are
    found = attack.run(net.classifier(), net.x, net.y, threat, generator=net.streams())
    left, asked, turns = list(range(len(net.x))), iter(net.asked[1:]), []
    for turn in range(3):
        points = next(asked, None)
        if points is None:
            break
        turns.append(len(left))
        assert len(points) == len(left)
        paths = {
            n: Algorithm1(
                net, net.x[n], int(net.y[n]), points[row], "linf", 0.15, STEPS,
                objective=plain_of(net, int(net.y[n]), likeliest(net, n)[turn]),
            ).path
            for row, n in enumerate(left)
        }  # fmt: skip
        for step in range(STEPS + 1):
            for row, n in enumerate(list(left)):
                torch.testing.assert_close(points[row], paths[n][step], rtol=0, atol=1e-9)
                if int(net.logits(points[row]).argmax()) != int(net.y[n]):
                    torch.testing.assert_close(found[n], points[row], rtol=0, atol=1e-6)
                    left.remove(n)
            if step < STEPS and left:
                points = next(asked)
                assert len(points) == len(left)
    assert next(asked, None) is None
    assert len(turns) == 3
    assert turns[0] > turns[1]  # some left in the first turn
    assert left  # and some stayed to the last


def test_a_goal_that_names_the_class_is_for_another():
    net = curved()
    with pytest.raises(Unsupported, match="under a targeted goal use `APGD`"):
        TargetedAPGD().run(
            net.classifier(),
            net.x,
            net.y,
            threat_model("linf", 0.1, goal="targeted"),
            generator=net.streams(),
        )
    with pytest.raises(Unsupported, match=r"^`TargetedAPGD` "):
        TargetedAPGD(steps=1).run(
            Classifier(net.layers), net.x, net.y, threat_model("l0", 1), generator=net.streams()
        )


def test_it_fits_itself_to_the_classes_there_are_and_says_what_it_is():
    attack, gradient = TargetedAPGD(), Exact()
    assert attack.fit(Setting(classes=2)) is None
    fitted = attack.fit(Setting(classes=5, gradient=gradient, random=True, detector=True))
    assert (fitted.targets, fitted.gradient, fitted.early_stop) == (4, gradient, False)
    assert fitted.objective is attack.objective  # it pulls, whatever objects
    assert attack.fit(Setting(classes=100)).targets == 9
    assert attack.describe() == "targeted APGD-100, 9 classes"
    assert TargetedAPGD(targets=1, steps=7).describe() == "targeted APGD-7, 1 class"
    assert TargetedAPGD(targets=2, steps=7).describe() == "targeted APGD-7, 2 classes"
    assert attack.cost(5).estimates == 4 * 103
    assert (attack.cost(100).estimates, attack.cost(100).forwards) == (9 * 103, 1)
