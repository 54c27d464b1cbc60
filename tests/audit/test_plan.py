"""The plan: stages fitted to the network, lines that go on while they pay, budgets that contain each other."""

from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn

from unmask.attacks import APGD, Attack, BoundaryWalk, CoordinateSearch, RayS, Setting, Square, TargetedAPGD
from unmask.audit.campaign import attack_runner
from unmask.audit.campaign.plan import BUDGETS, STANDARD, Budget, Stage
from unmask.audit.campaign.steps import slope_free_step, step_of
from unmask.audit.run import audit
from unmask.bounds import BranchAndBound
from unmask.claim.claim import claim_about
from unmask.data import Data
from unmask.errors import Unsupported, UnusableInput
from unmask.gradients import EOT, Exact, LogitScale
from unmask.objectives import Targeted, Undetected, cross_entropy, margin_loss
from unmask.remedies import per_element
from unmask.threat import L1, L2, Linf


@dataclass(frozen=True)
class Mine(Attack):
    """An attack of one's own: nothing but `run`."""

    seen: list[int] = field(default_factory=list, compare=False)
    by: float = 0.0

    def run(self, classifier, x, y, threat, *, generator):
        self.seen.append(len(x))
        return threat.settle(x + self.by, x)


class Ramp(nn.Module):
    """One number decides: class 1 above 0.5."""

    def forward(self, x):
        value = x.flatten(1)[:, 0] - 0.5
        return torch.stack([0 * value, value, 0 * value - 9], 1)


def ramp(*numbers):
    x = torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    return Data(
        x=x, y=torch.zeros(len(x), dtype=torch.int64), index=torch.arange(len(x)), name="ramp", split="test"
    )


def small(*lines):
    return Budget(
        naive_steps=1, race_examples=4, race_steps=2, steps=2, lines=lines, black_box_queries=10, draws=2,
        control_examples=2, relaxation=0,
    )  # fmt: skip


@pytest.fixture
def budgeted(monkeypatch):
    def run(budget, data, **options):
        monkeypatch.setitem(BUDGETS, "quick", budget)
        return audit(Ramp(), data, claim_about(Linf(epsilon=0.01), budget="quick", **options))

    return run


FAR = ramp(*[0.3] * 20)  # no attack reaches 0.5 from there


def test_an_attack_of_ones_own_runs_in_a_plan_and_is_named(budgeted):
    mine = Mine()
    report = budgeted(small((Stage(name="own", attack=mine),)), FAR)
    assert mine.seen == [20]
    assert report.attacks[-1].recipe == "own: Mine"


def test_a_line_goes_on_only_while_it_pays(budgeted, monkeypatch):
    first, second, third = Mine(), Mine(), Mine()
    report = budgeted(
        small(
            (Stage(name="a", attack=first, fraction=0.5), Stage(name="b", attack=second)),
            (Stage(name="c", attack=third),),
        ),
        FAR,
    )
    assert (first.seen, second.seen, third.seen) == ([10], [], [20])
    assert [a.recipe for a in report.attacks][-2:] == ["a: Mine on the 50% nearest to breaking", "c: Mine"]
    monkeypatch.setattr(attack_runner, "PAYING", 0.0)
    going_on = Mine()
    budgeted(small((Stage(name="a", attack=Mine(), fraction=0.5), Stage(name="b", attack=going_on))), FAR)
    assert going_on.seen == [20]


def test_a_stage_may_need_another_or_be_made_needless_by_it(budgeted):
    attacks = {name: Mine() for name in "abc"}
    budgeted(
        small(
            (Stage(name="a", attack=attacks["a"]),),
            (Stage(name="b", attack=attacks["b"], given="a"),),
            (Stage(name="c", attack=attacks["c"], unless="a"),),
        ),
        FAR,
    )
    assert [bool(attacks[name].seen) for name in "abc"] == [True, False, False]


def test_a_share_is_never_fewer_than_enough_to_learn_from(budgeted):
    mine = Mine()
    budgeted(small((Stage(name="a", attack=mine, fraction=0.01),)), FAR)
    assert mine.seen == [attack_runner.AT_LEAST]


def test_an_attack_that_does_not_know_the_norm_is_left_out(budgeted):
    @dataclass(frozen=True)
    class Elsewhere(Attack):
        def run(self, classifier, x, y, threat, *, generator):
            raise Unsupported("L7 alone")

    after = Mine()
    budgeted(small((Stage(name="a", attack=Elsewhere()),), (Stage(name="b", attack=after),)), FAR)
    assert after.seen == [20]


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
@pytest.mark.parametrize(
    "setting",
    [
        Setting(),
        Setting(classes=10),
        Setting(random=True, classes=3),
        Setting(detector=True, classes=10),
        Setting(shape=(30,)),
    ],
    ids=["two", "ten", "random", "detector", "vectors"],
)
def test_every_stage_fits_or_has_nothing_to_do(budget, setting):
    setting = replace(setting, gradient=EOT())
    for line in (line for part in budget.in_turn() for line in part.lines):
        for stage in line:
            step = step_of(stage, "EOT", setting)
            unknowing = isinstance(stage.attack, BranchAndBound) and (setting.random or setting.detector)
            unknowing |= isinstance(stage.attack, CoordinateSearch) and setting.shape != (30,)
            assert (step is None) == (unknowing or (stage.attack.chooses_targets and setting.classes < 3))
            if step is None:
                continue
            assert stage.name in step.recipe
            if isinstance(stage.attack, BranchAndBound):
                continue
            assert ("EOT" in step.recipe) == step.attack.needs_gradient
            assert getattr(step.attack, "early_stop") is not setting.random
            if not step.attack.chooses_targets:
                assert isinstance(getattr(step.attack, "objective"), Undetected) == setting.detector


def test_attacks_fit_themselves():
    assert TargetedAPGD().fit(Setting(classes=2)) is None
    fitted = TargetedAPGD(targets=9, objective=Targeted()).fit(Setting(classes=4))
    assert fitted is not None
    assert "3 classes" in fitted.describe()
    assert RayS().fit(Setting(random=True)) is None
    assert Square(queries=40).fit(Setting(random=True)) == Square(queries=40, draws=4, early_stop=False)
    assert APGD(steps=7, restarts=2).describe() == "APGD-7, 2 restarts"
    assert BoundaryWalk.needs_gradient
    assert not Square.needs_gradient


def test_what_the_naive_attack_has_done_is_not_done_again():
    stage = Stage(name="cross-entropy", attack=APGD(objective=cross_entropy), repeats_naive=True)
    assert step_of(stage, "exact", Setting()) is None
    assert step_of(stage, "logit scale", Setting(gradient=LogitScale(Exact()))) is not None


def test_thorough_begins_with_all_that_standard_does():
    standard, thorough = BUDGETS["standard"], BUDGETS["thorough"]
    assert thorough.in_turn() == (standard, thorough)
    for name in ("naive_steps", "race_examples", "race_steps"):  # they come before the stages
        assert getattr(thorough, name) == getattr(standard, name)


def test_bad_budgets_are_named():
    with pytest.raises(UnusableInput, match="stage `a` has fraction=0"):
        Stage(name="a", attack=Mine(), fraction=0)
    with pytest.raises(UnusableInput, match="named a, a"):
        small((Stage(name="a", attack=Mine()), Stage(name="a", attack=Mine())))
    with pytest.raises(UnusableInput, match="name of its own"):
        replace(STANDARD, after=STANDARD)


def test_margin_losses_are_what_a_plan_climbs_by_default():
    assert all(
        getattr(stage.attack, "objective", margin_loss) in (margin_loss, cross_entropy)
        or stage.attack.chooses_targets
        for budget in BUDGETS.values()
        for line in budget.lines
        for stage in line
    )


def test_branches_run_on_whatever_no_slope_breaks_and_are_left_out_where_they_cannot(budgeted):
    stage = Stage(name="branches", attack=BranchAndBound(branches=20))
    for budget in (BUDGETS["standard"], BUDGETS["thorough"]):
        (last,) = [s for line in budget.lines for s in line if isinstance(s.attack, BranchAndBound)]
        assert last.fraction == 1
    report = budgeted(small((stage,)), FAR)  # Ramp has no ReLU
    assert report.robust_accuracy == 1
    assert not any("branch" in a.recipe for a in report.attacks)


@pytest.mark.parametrize(("threat", "size"), [(Linf(0.4), 0.4), (L2(0.4), 0.1), (L1(0.4), 0.025)], ids=str)
def test_finite_differences_of_the_whole_network_lie_where_an_attack_does(threat, size):
    """A step of four by four images: at a fixed distance its slopes are nil in a small ball and blurred in a large."""
    asked = per_element(threat, torch.zeros(1, 1, 4, 4))
    assert asked == pytest.approx(size)
    step = slope_free_step(small(), threat, size=asked)
    assert step.attack.gradient.delta == pytest.approx(size / 4)
