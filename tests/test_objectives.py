"""Objectives against their formulas, written out."""

import math

import pytest
import torch

from unmask.errors import Unsupported
from unmask.objectives import (
    Confident,
    Targeted,
    TargetedDLR,
    Towards,
    Undetected,
    cross_entropy,
    dlr,
    margin_loss,
)
from unmask.types import Outputs

LOGITS = torch.tensor([[3.0, 1.0, 0.0, -1.0], [0.5, 2.0, 1.0, 4.0]], dtype=torch.float64)
Y = torch.tensor([0, 1])
OUT = Outputs(LOGITS)
EACH = {
    "ce": cross_entropy,
    "margin": margin_loss,
    "dlr": dlr,
    "targeted": Targeted(torch.tensor([2, 3])),
    "targeted dlr": TargetedDLR(torch.tensor([2, 3])),
    "minus": Towards(margin_loss),
    "confident": Confident(margin_loss, 1.0),
    "undetected": Undetected(margin_loss, 2.0),
}


def test_values_written_out():
    assert cross_entropy(OUT, Y)[0].item() == pytest.approx(
        math.log(1 + math.exp(-2) + math.exp(-3) + math.exp(-4))
    )
    assert margin_loss(OUT, Y).tolist() == [-2.0, 2.0]
    assert dlr(OUT, Y).tolist() == pytest.approx([-2 / 3, 2 / 3])
    assert EACH["targeted"](OUT, Y).tolist() == [-3.0, 2.0]
    assert EACH["targeted dlr"](OUT, Y).tolist() == pytest.approx([-3 / 3.5, 2 / 3.25])
    assert EACH["confident"](OUT, Y).tolist() == [-2.0, 1.0]
    assert EACH["minus"](OUT, Y).tolist() == [2.0, -2.0]


@pytest.mark.parametrize("name", EACH)
def test_a_part_has_the_values_of_the_whole(name):
    part = torch.tensor([1])
    objective = EACH[name]
    assert torch.equal(objective.take(part)(OUT[part], Y[part]), objective(OUT, Y)[part])


@pytest.mark.parametrize("name", ["dlr", "targeted dlr"])
def test_dlr_ignores_shift_and_scale_of_the_logits(name):
    torch.testing.assert_close(EACH[name](Outputs(7 * LOGITS + 100), Y), EACH[name](OUT, Y))


@pytest.mark.parametrize("name", EACH)
def test_gradient_is_finite_where_all_logits_are_equal(name):
    logits = torch.zeros(2, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(EACH[name](Outputs(logits), Y).sum(), logits)
    assert grad.isfinite().all()


@pytest.mark.parametrize("objective", [dlr, TargetedDLR(torch.tensor([2, 0]))])
def test_three_classes_are_enough(objective):
    assert objective(Outputs(LOGITS[:, :3]), Y).isfinite().all()


@pytest.mark.parametrize("objective", [cross_entropy, margin_loss, dlr, Undetected(margin_loss)])
def test_a_targeted_goal_turns_the_objective_round_once(objective):
    turned = objective.for_goal("targeted")
    assert torch.equal(turned(OUT, Y), -objective(OUT, Y))
    assert torch.equal(turned.for_goal("targeted")(OUT, Y), turned(OUT, Y))
    assert objective.for_goal("untargeted") == objective


def test_a_rejected_input_is_worth_less():
    scored = Outputs(LOGITS, torch.tensor([0.5, -0.5], dtype=torch.float64))
    assert EACH["undetected"](scored, Y).tolist() == [-3.0, 2.0]


def test_targets_must_be_given():
    with pytest.raises(Unsupported, match="TargetedAPGD"):
        Targeted()(OUT, Y)


def test_a_part_keeps_targets_weight_and_level_and_a_goal_keeps_them_too():
    """Whatever wraps an objective with fields of its own."""
    inner, part = Targeted(torch.tensor([2, 3])), torch.tensor([1])
    scored = Outputs(LOGITS, torch.tensor([0.5, 0.25], dtype=torch.float64))
    for whole, value in ((Towards(inner), -2.0), (Undetected(inner, 2.0), 1.5), (Confident(inner, 1.5), 1.5)):
        assert whole.take(part)(scored[part], Y[part]).tolist() == [value]
    assert Undetected(margin_loss, 2.0).for_goal("targeted")(scored, Y).tolist() == [2.0 - 1.0, -2.0 - 0.5]
    assert Confident(margin_loss, -1.0).for_goal("targeted")(scored, Y).tolist() == [-1.0, -2.0]


def test_aiming_anew_changes_the_targets_alone():
    assert Targeted().aim(torch.tensor([3, 0]))(OUT, Y).tolist() == [-4.0, -1.5]
    assert Targeted().take(torch.tensor([0])).targets is None
    with pytest.raises(Unsupported, match="`Targeted` has no targets; give `Targeted"):
        Targeted()(OUT, Y)


def test_the_targeted_ratio_with_three_classes_with_five_and_with_logits_close_together():
    aim = TargetedDLR(torch.tensor([2]))
    three = Outputs(torch.tensor([[3.0, 1.0, 2.5]]))
    assert aim(three, Y[:1]).tolist() == [-0.5 / (3.0 - 1.0)]
    five = Outputs(torch.tensor([[3.0, 1.0, 2.5, 0.5, -7.0]]))
    assert aim(five, Y[:1]).tolist() == pytest.approx([-0.5 / (3.0 - (1.0 + 0.5) / 2)])
    close = Outputs(torch.tensor([[0.3, 0.1, 0.2]], dtype=torch.float64))
    assert aim(close, Y[:1]).tolist() == pytest.approx([-0.1 / 0.2])
