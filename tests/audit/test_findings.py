"""When a suspect deserves a name: branch by branch, both sides of every condition."""

import pytest
import torch
from tests.tracing.named import BY_NAME

from unmask.audit.findings import GradientState, confirmed
from unmask.tracing.intercept.sites import Site
from unmask.tracing.suspect import Analysis, Suspect
from unmask.tracing.symptoms.random import STEADY
from unmask.tracing.symptoms.thresholds import GAP, MISLED

LEADING_NOWHERE = ("zero", "discrete", "effect", "cut", "opaque")


def named(
    symptom,
    *,
    kind="torch",
    share=0.4,
    jump=0.0,
    deterministic=True,
    gap=0.0,
    naive_gap=0.0,
    more=None,
    **state,
):
    """Whether a suspect is confirmed, beside one that never is and one that always would be."""
    site = Site("net.py", 3)
    suspect = Suspect(BY_NAME[symptom], "torch.f", site, ("f", "net.py", 3), kind, share, {"jump": jump})
    analysis = Analysis((suspect,), None, {}, deterministic, True, ())  # type: ignore[arg-type]
    seen = {"dead_cross_entropy": 0.0, "dead_margin": 0.0, "non_finite": 0.0, **state}
    kept = confirmed(
        analysis,
        GradientState(**seen, elements=torch.zeros(0)),
        deterministic=deterministic,
        gap=gap,
        naive_gap=naive_gap,
        **{"gained": 0.0, "steady": 0.0, **(more or {})},
    )
    assert kept in ([], [suspect])
    return kept == [suspect]


def test_what_draws_is_named_where_an_attack_lost_something_on_gradients_that_scatter():
    assert named("random", deterministic=False, more={"gained": GAP})
    assert not named("random", deterministic=True, more={"gained": GAP})
    assert not named("random", deterministic=False, more={"gained": GAP - 0.001})
    assert named("random", deterministic=False, more={"gained": GAP, "steady": STEADY - 0.001})
    assert not named("random", deterministic=False, more={"gained": GAP, "steady": STEADY})
    assert named("random", deterministic=False, more={"gained": GAP, "steady": float("nan")})
    assert not named("random", deterministic=False, gap=1.0, naive_gap=1.0)


def test_a_wrong_slope_is_named_where_it_cost_something():
    assert not named("wrong")
    assert named("wrong", gap=GAP)
    assert not named("wrong", gap=GAP - 0.001)
    assert named("wrong", more={"gained": MISLED})
    assert not named("wrong", more={"gained": MISLED - 0.001})
    assert named("wrong", dead_margin=0.5)
    assert not named("wrong", dead_margin=0.49)


def test_a_wrong_slope_of_torch_s_own_is_excused_where_gradients_are_nan():
    assert named("wrong", gap=GAP, non_finite=0.49)
    assert not named("wrong", gap=GAP, non_finite=0.5)
    assert not named("wrong", gap=GAP, non_finite=0.5, share=0.5)
    assert not named("wrong", gap=GAP, non_finite=0.5, share=float("nan"))
    assert named("wrong", gap=GAP, non_finite=0.5, share=0.51)
    assert named("wrong", gap=GAP, non_finite=0.5, kind="function")


def test_a_declared_backward_is_named_where_the_winner_follows_another():
    here, elsewhere = ("f", "net.py", 3), ("f", "net.py", 4)
    assert named("declared", gap=GAP, more={"repaired": (here,)})
    assert not named("declared", gap=GAP, more={"repaired": (elsewhere,)})
    assert not named("declared", gap=GAP - 0.001, more={"repaired": (here,)})


@pytest.mark.parametrize("symptom", LEADING_NOWHERE)
def test_a_lost_gradient_is_named_where_it_fooled_an_attack_or_surely_would(symptom):
    assert not named(symptom)
    assert named(symptom, dead_margin=0.5)
    assert not named(symptom, dead_margin=0.49)
    assert named(symptom, gap=GAP)
    assert not named(symptom, gap=GAP - 0.001)
    assert not named(symptom, naive_gap=1.0)
    assert not named(symptom, dead_cross_entropy=1.0)


@pytest.mark.parametrize("symptom", LEADING_NOWHERE)
def test_nan_explains_a_failed_attack_unless_most_of_the_effect_passes_here(symptom):
    assert not named(symptom, gap=GAP, non_finite=0.01, share=0.5)
    assert named(symptom, gap=GAP, non_finite=0.01, share=0.51)


@pytest.mark.parametrize("symptom", LEADING_NOWHERE)
def test_noise_that_the_input_seeds_needs_no_gap(symptom):
    assert named(symptom, share=0.51, jump=0.81)
    assert not named(symptom, share=0.5, jump=0.81)
    assert not named(symptom, share=0.51, jump=0.8)
    assert not named(symptom, share=0.51, jump=0.81, deterministic=False)


def test_underflow_is_named_where_cross_entropy_died_and_the_standard_attack_was_misled():
    assert named("underflow", dead_cross_entropy=0.11, naive_gap=GAP)
    assert not named("underflow", dead_cross_entropy=0.1, naive_gap=GAP)
    assert not named("underflow", dead_cross_entropy=0.11, naive_gap=GAP - 0.001)
    assert not named("underflow", dead_cross_entropy=0.11, gap=1.0)
    assert not named("underflow", dead_margin=1.0, naive_gap=1.0)


@pytest.mark.parametrize("symptom", ["vanished", "saturated"])
def test_a_gradient_that_dies_is_named_where_something_was_gained_without_it(symptom):
    assert named(symptom, gap=GAP)
    assert not named(symptom, gap=GAP - 0.001)
    assert named(symptom, dead_margin=0.11, naive_gap=GAP)
    assert not named(symptom, dead_margin=0.1, naive_gap=GAP)
    assert not named(symptom, dead_margin=0.11, naive_gap=GAP - 0.001)
    assert not named(symptom, naive_gap=1.0)
    assert named(symptom, dead_cross_entropy=0.11, naive_gap=GAP)
    assert not named(symptom, dead_cross_entropy=0.1, naive_gap=GAP)


def test_an_exploding_gradient_is_named_where_gradients_were_not_finite():
    assert named("non_finite", non_finite=0.01)
    assert not named("non_finite", gap=1.0, naive_gap=1.0, dead_margin=1.0)


def test_all_that_are_confirmed_keep_their_order():
    site, group = Site("net.py", 3), ("f", "net.py", 3)
    suspects = [
        Suspect(BY_NAME[s], "torch.f", site, group)
        for s in ("vanished", "random", "cut", "non_finite", "zero")
    ]
    analysis = Analysis(tuple(suspects), None, {}, True, True, ())  # type: ignore[arg-type]
    state = GradientState(0.0, 0.0, 0.0, torch.zeros(0))
    kept = confirmed(analysis, state, deterministic=True, gap=GAP, naive_gap=GAP, gained=0.0, steady=0.0)
    assert [s.symptom.name for s in kept] == ["vanished", "cut", "zero"]
