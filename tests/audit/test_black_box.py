"""Claims against an adversary who only asks: masking is named, but what it hid stays hidden."""

import json

import pytest
from tests.audit.small_audit import write_target
from tests.fixtures.case import fixture

from unmask.audit.run import audit
from unmask.audit.verify import verify
from unmask.claim.claim import claim_about
from unmask.cli.main import main
from unmask.data import load
from unmask.errors import UnmaskError
from unmask.threat import L2, Linf

LINF = Linf(epsilon=0.1)


@pytest.fixture(scope="module")
def network():
    return fixture("digits_networks").trained("plain_cnn")


@pytest.fixture(scope="module")
def data():
    return load("digits", examples=40)


@pytest.fixture(scope="module")
def by_the_owner(network, data):
    return audit(network, data, claim_about(LINF, budget="quick"))


@pytest.mark.parametrize(
    ("knowledge", "queries", "walk"),
    [
        ("scores", 400, "RayS"),
        pytest.param("labels", 400, "RayS", marks=pytest.mark.slow),
        ("labels", 30, "RayS"),
    ],
)
def test_queries_break_less_than_gradients_and_keep_to_the_limit(
    network, data, by_the_owner, knowledge, queries, walk
):
    report = audit(network, data, claim_about(LINF, budget="quick", knowledge=knowledge, queries=queries))
    assert by_the_owner.robust_accuracy <= report.robust_accuracy < report.clean_accuracy
    assert report.knowledge == knowledge
    assert report.queries.limit == queries
    assert report.queries.mean <= report.queries.most <= queries
    assert sum(attack.forwards for attack in report.attacks) == pytest.approx(report.queries.mean * len(data))
    assert all(attack.backwards == 0 for attack in report.attacks)
    assert any(walk in attack.recipe for attack in report.attacks)
    # The standard attack sees the network: it is quoted, and it does not count.
    assert report.naive_robust_accuracy == by_the_owner.naive_robust_accuracy
    assert [c.name for c in report.controls if c.passed is False] == []


def test_without_a_limit_the_budget_decides(network, data):
    report = audit(network, data[:20], claim_about(L2(epsilon=0.6), budget="quick", knowledge="scores"))
    assert report.queries.limit is None
    assert report.queries.most == 21 + 300 + 300
    assert [attack.recipe.split("-")[0].split(",")[0] for attack in report.attacks] == [
        "substitute",
        "Square",
        "HopSkipJump",
    ]


def test_masking_is_named_although_it_does_not_matter(data):
    masked = fixture("bit_depth")
    report = audit(
        masked.build(), data[:16], claim_about(LINF, budget="quick", knowledge="scores", queries=600)
    )
    assert [finding.mechanism for finding in report.masking] == ["shattered"]
    assert report.naive_robust_accuracy > 0.8
    assert all("repair" not in attack.recipe for attack in report.attacks)
    assert report.robust_accuracy < report.naive_robust_accuracy  # search needs no gradient


def test_a_claim_of_scores_end_to_end(tmp_path, capsys):
    target = f"{write_target(tmp_path)}:linear"
    file = tmp_path / "claim.toml"
    stated = {
        "target": target,
        "norm": "linf",
        "epsilon": 0.25,
        "goal": "targeted",
        "targets": "random",
        "knowledge": "scores",
        "queries": 300,
        "examples": 12,
        "budget": "quick",
        "claim": 0.95,
    }
    file.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in stated.items()))
    out = tmp_path / "out"
    assert main(["audit", str(file), "--out", str(out)]) == 1
    assert "against one who is told scores by at most 300 queries" in " ".join(
        capsys.readouterr().out.split()
    )
    report = json.loads((out / "report.json").read_text())
    assert (report["knowledge"], report["targets"], report["queries"]["limit"]) == ("scores", "random", 300)
    outcome = verify(out)
    assert outcome.holds, outcome.checks
    # The same from flags, and the same again by resuming.
    flags = f"audit {target} --norm linf --epsilon 0.25 --goal targeted --targets random --knowledge scores".split()
    flags += "--queries 300 --examples 12 --budget quick --claim 0.95 --quiet --out".split()
    assert main([*flags, str(tmp_path / "flags")]) == 1
    again = json.loads((tmp_path / "flags" / "report.json").read_text())
    assert again["robust_accuracy"] == report["robust_accuracy"]
    assert main(["audit", "--resume", str(tmp_path / "flags"), "--quiet"]) == 1
    resumed = json.loads((tmp_path / "flags" / "report.json").read_text())
    for key in ("robust_accuracy", "queries", "naive_robust_accuracy", "controls"):
        assert resumed[key] == again[key]
    for key in ("forwards", "backwards"):
        assert resumed["cost"][key] == pytest.approx(again["cost"][key], rel=0.05)


@pytest.mark.parametrize(
    ("threat", "options", "told"),
    [
        (LINF, {"knowledge": "transfer"}, "an audit has no other network"),
        (LINF, {"queries": 5}, "who sees the network need not ask it"),
        (LINF, {"knowledge": "scores", "queries": 0}, "queries of the call is 0; give at least 1"),
        (LINF, {"targets": "random"}, "the goal is untargeted"),
        (Linf(epsilon=0.1, goal="targeted"), {}, "targets is not stated"),
        (
            Linf(epsilon=0.1, goal="targeted"),
            {"targets": 3, "knowledge": "labels"},
            "no attack that reaches a given class by labels alone",
        ),
        (Linf(epsilon=0.1, goal="targeted"), {"targets": 3}, "1 of 40 images is of that class already"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(network, data, threat, options, told):
    with pytest.raises(UnmaskError, match=told):
        audit(network, data, claim_about(threat, **options))


def test_a_random_network_is_asked_for_its_deployed_prediction(tmp_path):
    target = fixture("input_noise")
    report = audit(
        target.build(),
        load("digits", examples=6),
        claim_about(LINF, passes=4, budget="quick", knowledge="scores", queries=60),
    )
    assert report.stochastic
    assert report.queries.most <= 60
    assert sum(attack.forwards for attack in report.attacks) == pytest.approx(4 * report.queries.mean * 6)
