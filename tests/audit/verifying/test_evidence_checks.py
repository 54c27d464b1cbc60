"""Each question of `unmask verify` by itself: both sides of what it lets pass, from numbers written out by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from unmask.audit.verifying import evidence_checks as checks
from unmask.data import Data


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def evidence(**fields):
    found = {"failure_rate": tensor(1.0), "draws": 1, "targets": None}
    return SimpleNamespace(**(found | fields))


def data(n, index=None):
    x = torch.arange(n * 4).reshape(n, 1, 2, 2) / (4 * n)
    return Data(x, torch.zeros(n, dtype=torch.long), "d", "", torch.arange(n) if index is None else index)


# --- how long a perturbation is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norm", "length"),
    [("linf", 0.5), ("l2", math.sqrt(0.09 + 0.16 + 0.25)), ("l1", 1.2), ("l0", 2), ("patch", 2)],
)
def test_length_in_each_norm(norm, length):
    x = torch.full((2, 2, 3, 3), 0.5, dtype=torch.float64)
    x_adv = x.clone()
    x_adv[0, 0, 0, 1] += 0.3
    x_adv[0, 1, 0, 1] -= 0.4
    x_adv[0, 0, 1, 1] += 0.5
    assert checks.lengths(x_adv, x, norm).tolist() == pytest.approx([length, 0.0])
    assert checks.lengths(x_adv, x, norm).dtype == torch.float64


def test_each_changed_element_counts_where_elements_are_counted():
    x = torch.zeros(1, 3, 2, 2)
    x_adv = x.clone()
    x_adv[0, :2, 0, 0] = 1
    assert checks.lengths(x_adv, x, "l0-elements").tolist() == [2]
    assert checks.lengths(x_adv, x, "l0").tolist() == [1]


@pytest.mark.parametrize("norm", ["l0", "l0-elements"])
def test_features_of_a_vector_are_counted_one_by_one(norm):
    x_adv = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert checks.lengths(x_adv, torch.zeros(2, 4), norm).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("places", "side"), [([(0, 0), (3, 1)], 4), ([(1, 0), (1, 4)], 5), ([(2, 2)], 1), ([], 0)]
)
def test_a_patch_is_as_wide_as_what_changed_is_apart(places, side):
    x_adv = torch.zeros(1, 2, 5, 5)
    for row, column in places:
        x_adv[0, 1, row, column] = 1
    assert checks.lengths(x_adv, torch.zeros(1, 2, 5, 5), "patch").tolist() == [side]


def test_radii_are_measured_in_units_of_the_largest_and_what_has_none_may_not_move():
    x = torch.zeros(2, 3, 1, 1)
    x_adv = torch.tensor([[0.1, 0.1, 0.0], [0.0, 0.0, 1e-6]]).reshape(2, 3, 1, 1)
    found = checks.lengths(x_adv, x, "linf", [0.2, 0.4, 0.0])
    assert found[0].item() == pytest.approx(0.2)  # half of the first's radius is half of the largest
    assert found[1].item() == math.inf
    assert checks.lengths(x_adv, x, "l1", [0.2, 0.4, 0.0])[0].item() == pytest.approx(0.3)


# --- whether the adversary has what he wants ----------------------------------------------------------------------


def test_met_is_another_class_or_the_target_and_only_what_is_answered():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    answered = torch.tensor([True, True, False])
    zeros = torch.zeros(3, dtype=torch.long)
    assert checks.met(logits, answered, label=zeros).tolist() == [0, 1, 0]
    assert checks.met(logits, answered, target=zeros).tolist() == [1, 0, 0]
    assert checks.met(logits, answered, target=zeros + 1).tolist() == [0, 1, 0]


def test_targets_follow_the_stated_rule_and_seed():
    some = data(6)
    logits = torch.arange(60.0).reshape(6, 10).sin()

    def of(rule, seed=0):
        report = SimpleNamespace(targets=rule, environment=SimpleNamespace(seed=seed))
        return checks.targets_by_rule(report, some, lambda x: (logits[: len(x)], None))

    assert of(3).tolist() == [3] * 6
    assert torch.equal(of("least-likely"), logits.scatter(1, some.y[:, None], torch.inf).argmin(1))
    assert not torch.equal(of("random"), of("random", seed=1))


# --- rates of a random network ---------------------------------------------------------------------------------


def test_an_example_may_fail_as_rarely_as_chance_allows():
    """Stated 4 of 4, seen f of 20: all that were not drawn afresh failed, which has chance C(4 + f, f) / C(24, 4)."""

    def doubted(f, examples):
        stated = evidence(failure_rate=torch.ones(examples), draws=4)
        return not checks.plausible(tensor(*[f] * examples), 20, stated).any()

    chances = [math.comb(4 + f, f) / math.comb(24, 4) for f in range(4)]
    assert chances[1] < 1e-3 < chances[2]
    assert [doubted(f, 1) for f in range(4)] == [True, True, False, False]
    assert 1e-3 / 3 < chances[1] < 1e-3 / 2  # of several examples each may be as rare as all together
    assert [doubted(1, n) for n in (2, 3)] == [True, False]
    assert checks.plausible(torch.zeros(0), 20, evidence(failure_rate=torch.zeros(0))).tolist() == []


def test_an_example_may_fail_more_often_than_stated():
    assert checks.plausible(tensor(20.0), 20, evidence(failure_rate=tensor(0.25), draws=4)).all()


@pytest.mark.parametrize(("fresh", "holds"), [(44, True), (43, False), (50, True), (56, True), (57, False)])
def test_all_together_fail_about_as_often_as_stated(fresh, holds):
    """100 examples at one half, 10 draws stated and 20 fresh: 3.29 standard errors are 6.3 examples."""
    stated = evidence(failure_rate=torch.full((100,), 0.5), draws=10)
    found = checks.mean_rate(
        torch.stack([(torch.arange(100) + 5 * n) % 100 < fresh for n in range(20)]), stated
    )
    assert found.holds is holds
    assert found.name == "mean failure rate"
    assert found.found == f"stated 0.5000, fresh {fresh / 100:.4f}"


@pytest.mark.parametrize("together", [True, False])
def test_examples_that_fail_together_are_doubted_no_more_often_than_others(together):
    """Half of the draws, all 48 at once or each by itself: 2,000 honest audits of 64 draws, verified by 20."""
    generator = torch.Generator().manual_seed(0)
    doubted = 0
    for _ in range(2000):
        coins = torch.rand(84, 1 if together else 48, generator=generator).expand(84, 48) < 0.5
        stated = evidence(failure_rate=coins[:64].double().mean(0), draws=64)
        doubted += not checks.mean_rate(coins[64:], stated).holds
    assert doubted <= 8  # 2 are expected, and more than 8 have a chance of 2e-4


def test_together_or_not_a_mean_that_is_far_off_is_told():
    generator = torch.Generator().manual_seed(0)
    coins = torch.rand(20, 1, generator=generator).expand(20, 48) < 0.1
    assert not checks.mean_rate(coins, evidence(failure_rate=torch.full((48,), 0.99), draws=64)).holds


def test_a_mean_over_no_example_holds():
    nobody = torch.zeros(20, 0, dtype=torch.bool)
    found = checks.mean_rate(nobody, evidence(failure_rate=torch.zeros(0), draws=8))
    assert found == checks.Check("mean failure rate", True, "stated 0.0000, fresh 0.0000")


@pytest.mark.parametrize(
    ("rate", "draws", "possible"),
    [(1.0, 1, True), (0.0, 1, False), (0.5, 1, False), (0.125, 8, True), (0.13, 8, False), (0.0, 8, False),
     (1.0, 8, True), (1.125, 8, False), (float("nan"), 8, False), (0.1250001, 8, True)],
)  # fmt: skip
def test_a_rate_is_a_whole_number_of_draws_and_not_none_of_them(rate, draws, possible):
    found = checks.possible(evidence(failure_rate=torch.tensor([rate], dtype=torch.float32), draws=draws))
    assert found.tolist() == [possible]


@pytest.mark.parametrize(
    ("draws", "passes", "stochastic", "holds", "found"),
    [(1, 5, False, True, "1"), (64, 1, True, True, "64"), (65, 1, True, False, "stated 65, by the rule 64"),
     (8, 100, True, True, "8"), (2, 1, False, False, "stated 2, by the rule 1")],
)  # fmt: skip
def test_the_number_of_draws_is_not_the_files_choice(draws, passes, stochastic, holds, found):
    report = SimpleNamespace(passes=passes, stochastic=stochastic)
    seen = checks.draws_by_rule(report, evidence(draws=draws))
    assert seen == checks.Check("draws of the judge", holds, found)


# --- report, evidence and network of one audit ----------------------------------------------------------------------

RUN = {"threat": SimpleNamespace(goal="untargeted"), "data": "d", "split": "test", "target": "t", "passes": 1}
RUN |= {"average": None}


def of_one_run(hashed="abc" * 10, *, reported=None, held=None):
    report = (
        RUN | {"environment": SimpleNamespace(checkpoint_hash="abc" * 10), "targets": None} | (reported or {})
    )
    kept = RUN | {"checkpoint_hash": "abc" * 10, "targets": None} | (held or {})
    return checks.same_run(SimpleNamespace(**report), SimpleNamespace(**kept), hashed)


def test_one_audit():
    assert of_one_run() == checks.Check("checkpoint", True, "abcabcabcabc")
    assert of_one_run("other") == checks.Check("checkpoint", False, "not the audited one")
    nothing = {"checkpoint_hash": ""}
    without = {"environment": SimpleNamespace(checkpoint_hash="")}
    assert of_one_run("", reported=without, held=nothing) == checks.Check("checkpoint", True, "no parameters")


@pytest.mark.parametrize("name", [*RUN, "checkpoint_hash"])
def test_what_is_said_twice_is_said_alike(name):
    found = of_one_run(held={name: "another"})
    assert found == checks.Check(
        "one audit", False, "report.json and evidence.safetensors are of different audits"
    )


@pytest.mark.parametrize("aims", [True, False])
@pytest.mark.parametrize(
    ("in_report", "in_evidence"), [(True, True), (True, False), (False, True), (False, False)]
)
def test_targets_are_where_the_goal_is_targeted(aims, in_report, in_evidence):
    threat = {"threat": SimpleNamespace(goal="targeted" if aims else "untargeted")}
    found = of_one_run(
        reported=threat | {"targets": 3 if in_report else None},
        held=threat | {"targets": torch.ones(1) if in_evidence else None},
    )
    assert found.holds is (aims == in_report == in_evidence)


# --- clean images -----------------------------------------------------------------------------------------------


def answers(*classes):
    return [(torch.eye(3)[torch.tensor(c)], torch.ones(len(c), dtype=torch.bool)) for c in classes]


def test_randomness_is_seen():
    def asked(stochastic, clean, again=None):
        report = SimpleNamespace(stochastic=stochastic)
        return checks.randomness(report, clean, lambda x: answers(again)[0], data(2))

    same, other = [0, 1], [0, 2]
    assert asked(True, answers(same, same, other)) == checks.Check("randomness", True, "it draws")
    alike = checks.Check("randomness", False, "stated random, every draw is the same")
    assert asked(True, answers(same, same)) == alike
    assert asked(False, answers(same), same) == checks.Check("randomness", True, "none")
    differ = checks.Check("randomness", False, "stated none, two predictions differ")
    assert asked(False, answers(same), other) == differ


def test_clean_accuracy_of_a_network_without_randomness_is_exact():
    def asked(stated):
        report = SimpleNamespace(stochastic=False, clean_accuracy=stated)
        return checks.clean_accuracy(report, tensor(0, 0, 0, 1), 1)

    assert asked(0.75) == checks.Check("clean accuracy", True, "stated 0.7500, found 0.7500")
    assert asked(0.75 + 5e-7).holds
    assert not asked(0.75 + 2e-6).holds
    assert not asked(0.75 - 2e-6).holds


@pytest.mark.parametrize(
    ("off", "holds"), [(0.0, True), (0.166, True), (-0.166, True), (0.171, False), (-0.171, False)]
)
def test_clean_accuracy_of_a_random_one_scatters(off, holds):
    """100 images right half of the time: 3.29 * 0.05 * sqrt(1 + 1/20) is 0.1686."""
    report = SimpleNamespace(stochastic=True, clean_accuracy=0.5 + off)
    assert checks.clean_accuracy(report, torch.full((100,), 0.5).double(), 20).holds is holds


def test_what_is_wrong_without_an_attack_is_in_the_evidence():
    def asked(mistakes, index, robust=0.5, clean=0.5, stochastic=False, goal="untargeted"):
        report = SimpleNamespace(
            stochastic=stochastic,
            threat=SimpleNamespace(goal=goal),
            robust_accuracy=robust,
            clean_accuracy=clean,
        )
        places = torch.tensor([7, 3, 5])
        return checks.clean_mistakes(report, tensor(*mistakes), torch.tensor(index), data(3, places))

    name = "clean mistakes are in the evidence"
    assert asked([0, 1, 1], [3, 5]) == checks.Check(name, True, "0 are missing")
    assert asked([1, 1, 1], [3]) == checks.Check(name, False, "2 are missing")
    assert asked([0, 0, 0], []) == checks.Check(name, True, "0 are missing")
    above = "0 are missing; more survive than are right without an attack"
    assert asked([0, 0, 0], [], robust=0.51) == checks.Check(name, False, above)
    assert asked([0, 0, 0], [], robust=0.5 + 5e-7).holds
    for other in ({"stochastic": True}, {"goal": "targeted"}):
        not_asked = checks.Check(name, True, "not asked of this threat model")
        assert asked([1, 1, 1], [], robust=0.9, **other) == not_asked


# --- what follows ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "holds"), [(15.0, True), (15 + 1e-5, True), (15.001, False), (14.999, False)]
)
def test_robust_accuracy_is_what_the_evidence_leaves(broken, holds):
    report = SimpleNamespace(examples=20, robust_accuracy=0.25)
    found = checks.robust_accuracy(report, broken)
    assert found.holds is holds
    assert (
        found.found == "stated 0.2500, from evidence 0.2500" if holds else "from evidence 0.2" in found.found
    )


def concluded(
    monkeypatch, *, interval, stochastic=False, verdict="refuted", follows="refuted", rates=(1.0,) * 5
):
    monkeypatch.setattr(checks, "verdict_of", lambda report: follows)
    report = SimpleNamespace(
        robust_accuracy=0.5,
        examples=10,
        robust_accuracy_interval=interval,
        stochastic=stochastic,
        verdict=verdict,
    )
    kept = evidence(index=torch.arange(len(rates)), failure_rate=torch.tensor(rates))
    return checks.conclusion(report, kept)


def test_the_interval_and_the_verdict_follow(monkeypatch):
    exact = checks.clopper_pearson(5, 10)
    found = concluded(monkeypatch, interval=exact)
    assert found == checks.Check("interval and verdict", True, f"[{exact[0]:.4f}, {exact[1]:.4f}], refuted")
    other = concluded(monkeypatch, interval=exact, follows="confirmed")
    assert not other.holds
    assert other.found.endswith("confirmed, not refuted")
    assert not concluded(monkeypatch, interval=(exact[0], exact[1] + 1e-4)).holds
    assert not concluded(monkeypatch, interval=(exact[0] - 1e-4, exact[1])).holds


def test_the_interval_of_a_random_network_is_one_of_two(monkeypatch):
    rates = (0.5,) * 10
    of_means = checks.mean_interval([0.5] * 10)
    exact = checks.clopper_pearson(5, 10)
    assert not concluded(monkeypatch, interval=of_means, rates=rates).holds
    assert concluded(monkeypatch, interval=of_means, stochastic=True, rates=rates).holds
    assert concluded(monkeypatch, interval=exact, stochastic=True, rates=rates).holds  # of earlier versions
    wider = (of_means[0] - 1e-3, of_means[1] + 1e-3)
    assert not concluded(monkeypatch, interval=wider, stochastic=True, rates=rates).holds
    few = checks.mean_interval([0.0] * 5 + [1.0] * 5)  # what has no evidence is right
    assert concluded(monkeypatch, interval=few, stochastic=True).holds
