"""When a suspect deserves a name: branch by branch, both sides of every condition."""

from dataclasses import dataclass

import pytest
import torch
from tests.tracing.named import BY_NAME

from unmask.audit.findings import (
    JOINT,
    GradientState,
    confirmed,
    describe,
    end_of_statement,
    gradient_state,
    harmless,
    unlocated,
)
from unmask.audit.records import MaskingFinding
from unmask.classifier import Classifier
from unmask.randomness import Streams
from unmask.tracing.intercept.sites import Site
from unmask.tracing.suspect import Analysis, Asks, Suspect, Symptom
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


@pytest.mark.parametrize("name", ["declared", "drawn"])
def test_an_offer_is_named_where_the_winner_follows_it(name):
    here, elsewhere = ("f", "net.py", 3), ("f", "net.py", 4)
    assert named(name, gap=GAP, more={"repaired": (here,)})
    assert not named(name, gap=GAP, more={"repaired": (elsewhere,)})
    assert not named(name, gap=GAP - 0.001, more={"repaired": (here,)})


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
def test_a_lost_gradient_is_named_where_most_passes_it_and_all_attacks_together_led_further(symptom):
    assert named(symptom, share=0.51, more={"gained": MISLED})
    assert not named(symptom, share=0.5, more={"gained": MISLED})
    assert not named(symptom, share=0.51, more={"gained": MISLED - 0.001})
    assert not named(symptom, share=float("nan"), more={"gained": 1.0})


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


# --- what is said of them


@dataclass(frozen=True, kw_only=True)
class Told(Symptom):
    """A symptom that is worth a line where gradients are finite."""

    def sentence(self, s):
        return f"{s.operation} loses it"

    def confirmed(self, s, m):
        return True

    def harmless(self, s, m):
        return f"{s.operation} is odd" if m.non_finite < 0.5 and m.deterministic else ""


TOLD = Told(name="told", mechanism="shattered", asks=Asks.NOTHING)
OTHER = Told(name="other", mechanism="vanishing", asks=Asks.NOTHING)


def suspect(operation="torch.f", line=3, symptom=TOLD, *, file="net.py", module="", inside=None, **more):
    site = Site(file, line, module=module, inside=inside)
    return Suspect(symptom, operation, site, (operation, file, line), **more)


def analysed(*suspects):
    return Analysis(suspects, None, {}, True, True, ())  # type: ignore[arg-type]


FINE = GradientState(0.0, 0.0, 0.0, torch.zeros(0))


def test_a_fact_is_told_once_for_each_place_that_has_no_name():
    first, twice, second, named_ = (
        suspect(),
        suspect("torch.g"),
        suspect("torch.h", 4),
        suspect("torch.k", 5),
    )
    inside = suspect("torch.l", 0, file="", module="conv1")
    facts = harmless(analysed(first, twice, second, named_, inside), [named_], FINE, deterministic=True)
    assert [(f.statement, f.operation, f.file, f.line) for f in facts] == [
        ("torch.f is odd", "torch.f", "net.py", 3),
        ("torch.h is odd", "torch.h", "net.py", 4),
        ("torch.l is odd", "torch.l", None, None),
    ]
    elsewhere = suspect("torch.m", 0, file="", module="conv2")  # of two places without a line, either
    facts = harmless(analysed(inside, elsewhere, inside), [], FINE, deterministic=True)
    assert [f.operation for f in facts] == ["torch.l", "torch.m"]
    assert not harmless(analysed(first), [], FINE, deterministic=False)
    assert not harmless(analysed(first), [], GradientState(0.0, 0.0, 0.5, torch.zeros(0)), deterministic=True)


def test_a_misled_attack_without_a_guilty_line_is_a_finding_of_its_own():
    assert unlocated(MISLED - 0.001, [], FINE, detector=False) == []
    (found,) = unlocated(MISLED, [], FINE, detector=False)
    assert (found.mechanism, found.file, found.line) == ("evaluation", None, None)
    assert f"{100 * MISLED:.0f} points, although no operation" in found.symptom
    assert found.repair == "other losses, targets and restarts"
    (found,) = unlocated(0.5, [], FINE, detector=True)
    assert (found.mechanism, found.repair) == ("detector", JOINT)
    assert found.symptom.startswith(
        "the standard attack overestimates robust accuracy by 50 points: the detector"
    )
    for share, said in (
        (0.49, "no operation was found to falsify"),
        (0.5, "on 50% of the images the gradient is zero, and the"),
    ):
        dead = GradientState(0.0, share, 0.0, torch.zeros(0))
        (found,) = unlocated(0.5, [], dead, detector=False)
        assert said in found.symptom
    named_ = MaskingFinding(mechanism="shattered", symptom="", repair="")
    assert unlocated(0.5, [named_], FINE, detector=False) == []


def test_one_finding_for_each_place_and_mechanism():
    first = suspect(statistics={"a": 1 / 3, "b": float("nan"), "c": -float("inf")}, kind="opaque module")
    same, other = suspect("torch.g"), suspect(symptom=OTHER)
    within, further = suspect(inside=("lib.py", 7)), suspect(inside=("lib.py", 9))
    nowhere = suspect("torch.h", 0, file="", module="conv1")
    found = describe(
        [first, same, other, within, nowhere, further],
        {same.group: "its own", within.group: "smooth"},
        "the general one",
    )
    assert [f.mechanism for f in found] == ["shattered", "vanishing", "shattered", "shattered", "shattered"]
    assert found[0].symptom == "torch.f loses it (one opaque operation: repaired as a whole)"
    assert found[0].statistics == {"a": 0.333333, "b": None, "c": None}
    assert (found[0].operation, found[0].file, found[0].line) == ("torch.f", "net.py", 3)
    assert found[1].symptom == "torch.f loses it"
    assert [f.repair for f in found] == ["smooth", "smooth", "smooth", "the general one", "smooth"]
    assert [f.inside for f in found] == [None, None, "lib.py:7", None, "lib.py:9"]
    assert (found[3].file, found[3].line, found[3].module, found[3].code) == (None, None, "conv1", None)
    assert found[0].module is None


def test_a_statement_over_several_lines_ends_where_it_ends(tmp_path):
    file = tmp_path / "net.py"
    file.write_text("def f(x):\n    return x.round(\n    ).add(\n        1)\n\nif f:\n    y = 1\n")
    ends = [end_of_statement(str(file), line) for line in range(1, 8)]
    assert ends == [4, 4, 4, None, None, 7, None]
    file_of_none = tmp_path / "broken.py"
    file_of_none.write_text("def f(:\n    pass\n")
    assert end_of_statement(str(file_of_none), 1) is None
    assert end_of_statement(str(tmp_path / "none.py"), 1) is None
    (found,) = describe([suspect(line=2, file=str(file))], {}, "")
    assert (found.end_line, found.code) == (4, "return x.round(")
    (fact,) = harmless(analysed(suspect(line=2, file=str(file))), [], FINE, deterministic=True)
    assert fact.code == "return x.round("
    one_line = tmp_path / "one.py"  # of a block and what begins beside it, the inner
    one_line.write_text("if f: a = (\n    1\n); b = (\n    2\n)\n")
    assert end_of_statement(str(one_line), 1) == 3


def test_the_state_of_a_gradient_is_the_share_of_examples_that_have_none():
    """Logits that reach the input for images that are bright alone; NaN slopes for those that are dark."""
    x = torch.tensor([0.9, 0.9, 0.4, 0.1])[:, None, None, None].expand(4, 1, 2, 2).clone()

    def network(x):
        mean = x.flatten(1).mean(1)
        bright = torch.where(mean > 0.5, mean, mean.detach())
        # The root's slope is infinite at zero, and zero times that is NaN.
        dark = torch.where(mean < 0.2, (mean - mean.detach()).sqrt() * 0, torch.zeros_like(mean))
        return torch.stack([bright + dark, -bright], 1)

    y = torch.zeros(4, dtype=torch.int64)
    state = gradient_state(Classifier(network), x, y, generator=Streams.seeded(0, torch.arange(4), ""))
    assert state.non_finite >= 0.25
    assert state.elements.shape == (16,)

    def cut(x):
        return network(x).detach()

    state = gradient_state(Classifier(cut), x, y, generator=Streams.seeded(0, torch.arange(4), ""))
    assert (state.dead_cross_entropy, state.dead_margin, state.non_finite) == (1.0, 1.0, 0.0)

    def half(x):
        mean = x.flatten(1).mean(1)
        mean = torch.where(mean > 0.5, mean, mean.detach())
        return torch.stack([mean, -mean], 1)

    state = gradient_state(Classifier(half), x, y, generator=Streams.seeded(0, torch.arange(4), ""))
    assert (state.dead_cross_entropy, state.dead_margin, state.non_finite) == (0.5, 0.5, 0.0)

    def sure(x):  # cross-entropy underflows, the margin does not
        return torch.stack([1000 * x.flatten(1).mean(1), -1000 * x.flatten(1).mean(1)], 1)

    state = gradient_state(Classifier(sure), x, y, generator=Streams.seeded(0, torch.arange(4), ""))
    assert (state.dead_cross_entropy, state.dead_margin) == (1.0, 0.0)
    assert float(state.elements.abs().sum()) == 0.0


def test_a_backward_pass_that_is_refused_is_as_good_as_none():
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("no")

    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    classifier = Classifier(lambda x: Refuses.apply(x.flatten(1)))
    state = gradient_state(classifier, x, y, generator=Streams.seeded(0, torch.arange(3), ""))
    assert (state.dead_cross_entropy, state.dead_margin, state.non_finite) == (1.0, 1.0, 0.0)
    assert state.elements.tolist() == [0.0] * 12
