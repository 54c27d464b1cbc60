"""Which class each example is to be taken for, and an audit under a targeted goal, against the closed form."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from tests.audit.small_audit import EPSILON, EXAMPLES, write_target

from unmask.audit.evidence import read_evidence, write_evidence
from unmask.audit.verify import verify
from unmask.claim.target_classes import choose, load_for
from unmask.cli.main import main
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.target.target import load_target
from unmask.threat import Linf

Y = torch.arange(10).repeat(50)
INDEX = torch.arange(500)
LOGITS = torch.randn(500, 10, generator=torch.Generator().manual_seed(0))


def test_random_targets_are_the_documented_hash():
    found = choose("random", Y, INDEX, seed=3, logits=LOGITS)
    for place in (0, 7, 499):
        digest = int(hashlib.sha256(f"target 3 {place}".encode()).hexdigest(), 16)
        assert found[place] == (Y[place] + 1 + digest % 9) % 10


def test_random_targets_are_spread_over_all_classes_but_the_label():
    found = choose("random", Y, INDEX, seed=0, logits=LOGITS)
    assert (found != Y).all()
    # 500 draws over 9 distances: 55.6 each; a chi-square of 26.1 on 8 degrees of freedom has probability 0.001.
    counts = torch.bincount((found - Y) % 10, minlength=10)[1:].double()
    assert float(((counts - 500 / 9) ** 2 / (500 / 9)).sum()) < 26.1
    assert (found != choose("random", Y, INDEX, seed=1, logits=LOGITS)).any()


def test_an_examples_target_belongs_to_the_example():
    some = torch.tensor([4, 99, 321])
    whole = choose("random", Y, INDEX, seed=0, logits=LOGITS)
    assert torch.equal(choose("random", Y[some], INDEX[some], seed=0, logits=LOGITS[some]), whole[some])


def test_the_least_likely_class_is_never_the_label():
    found = choose("least-likely", Y, INDEX, seed=0, logits=LOGITS)
    assert (found != Y).all()
    others = LOGITS.scatter(1, Y[:, None], torch.inf)
    assert (others.gather(1, found[:, None])[:, 0] == others.amin(1)).all()


@pytest.mark.parametrize(
    ("targets", "told"), [(10, "has the classes 0 to 9"), (3, "50 of 500 images are of that")]
)
def test_a_class_that_cannot_be_the_target(targets, told):
    with pytest.raises(UnusableInput, match=told):
        choose(targets, Y, INDEX, seed=0, logits=LOGITS)


def test_images_of_the_target_class_are_left_out():
    data = load_for(3, "digits", split=None, examples=40, seed=None, allow_pickle=False)
    whole = load("digits")
    assert len(data) == 40
    assert (data.y != 3).all()
    assert torch.equal(data.x, whole.x[data.index])
    assert (whole.y[: int(data.index[-1])] == 3).sum() == int(data.index[-1]) + 1 - 40
    with pytest.raises(UnusableInput, match="not of the target class 3"):
        load_for(3, "digits", split=None, examples=500, seed=None, allow_pickle=False)


def targeted_closed_form(network, data, targets):
    """Whether the target's logit can be made the largest, for a linear network; between any two logits the sign of the
    difference of their weights is optimal, so that this is necessary for a success and sufficient for two classes."""
    weight = network.linear.weight.detach()
    possible = torch.ones(len(data), dtype=torch.bool)
    for c in range(10):
        direction = (weight[targets] - weight[c]).sign().reshape(data.x.shape)
        x_adv = Linf(epsilon=EPSILON).settle(data.x + EPSILON * direction, data.x)
        logits = network(x_adv).detach()
        ahead = logits.gather(1, targets[:, None])[:, 0] >= logits[:, c]
        possible &= ahead | (targets == c)
    return possible


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("targeted")


def claim(folder, **stated):
    target = f"{write_target(folder)}:linear"
    values = {"target": target, "norm": "linf", "epsilon": EPSILON, "examples": EXAMPLES, "budget": "quick"}
    file = folder / "claim.toml"
    file.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in {**values, **stated}.items()))
    return str(file)


@pytest.mark.parametrize(
    "targets", ["random", *(pytest.param(t, marks=pytest.mark.slow) for t in ("least-likely", 8))]
)
def test_a_targeted_claim_end_to_end(folder, targets, capsys):
    out = folder / f"out {targets}"
    file = claim(folder, goal="targeted", targets=targets, claim=0.2)
    assert main(["audit", file, "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "stay clear of their target" in said
    report, evidence = json.loads((out / "report.json").read_text()), read_evidence(out)
    assert (report["threat"]["goal"], report["targets"], report["examples"]) == (
        "targeted",
        targets,
        EXAMPLES,
    )
    data = load_for(targets, "digits", split=None, examples=EXAMPLES, seed=0, allow_pickle=False)
    network = load_target(f"{folder}/nearest_mean.py:linear").network
    with torch.no_grad():
        logits = network(data.x)
        aims = choose(targets, data.y, data.index, seed=0, logits=logits)
        assert report["clean_accuracy"] == pytest.approx(float((logits.argmax(1) == data.y).double().mean()))
        place = torch.searchsorted(data.index, evidence.index)
        assert torch.equal(evidence.targets, aims[place])
        assert torch.equal(network(evidence.x_adv).argmax(1), evidence.targets)
        assert torch.equal(evidence.label, data.y[place])
    # No example may be broken that the closed form says cannot be, and nearly all others must be.
    possible = targeted_closed_form(network, data, aims)
    assert possible[place].all()
    assert int(possible.sum()) - len(place) <= 1
    assert report["robust_accuracy"] == pytest.approx(1 - len(place) / EXAMPLES)
    outcome = verify(out)
    assert outcome.holds, outcome.checks
    assert main(["verify", str(out), "--quiet"]) == 0


@pytest.fixture(scope="module")
def at_random(tmp_path_factory):
    """An audit towards random classes, of this process's own."""
    folder = tmp_path_factory.mktemp("at_random")
    stated = claim(folder, goal="targeted", targets="random", claim=0.2)
    assert main(["audit", stated, "--out", str(folder / "out"), "--quiet"]) == 0
    return folder / "out"


def test_evidence_with_other_targets_is_doubted(at_random):
    out = at_random
    whole = read_evidence(out)
    assert len(whole.index)
    moved = (whole.targets + 1 + (whole.label == (whole.targets + 1) % 10).long()) % 10
    write_evidence(out, replace(whole, targets=moved))
    wrong = {check.name for check in verify(out).checks if not check.holds}
    assert {"target by the rule", "taken for its target"} <= wrong
    write_evidence(out, replace(whole, targets=None))
    assert "one audit" in {check.name for check in verify(out).checks if not check.holds}
    write_evidence(out, whole)
    assert verify(out).holds


def test_a_targeted_goal_is_weaker_than_an_untargeted_one(folder, at_random):
    out = folder / "untargeted"
    assert main(["audit", claim(folder), "--out", str(out), "--quiet"]) == 0
    untargeted = json.loads((out / "report.json").read_text())
    targeted = json.loads((at_random / "report.json").read_text())
    assert untargeted["robust_accuracy"] < targeted["robust_accuracy"]
    assert untargeted["clean_accuracy"] == targeted["clean_accuracy"]


def test_the_least_likely_class_of_a_random_network_is_refused(folder, capsys):
    file = claim(folder, goal="targeted", targets="least-likely", target=f"{folder}/nearest_mean.py:coin")
    assert main(["audit", file, "--out", str(folder / "coin")]) == 2
    assert "for a random network changes from draw to draw" in capsys.readouterr().err
