"""Sound evidence passes; every way of tampering with it is caught."""

import ast
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from tests.audit.small_audit import EPSILON, EXAMPLES, small_audit, write_audit, write_target

import unmask
from unmask.audit.evidence import final_draws, hash_images, read_evidence, write_evidence
from unmask.audit.verify import verify
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.target.load import build

FORBIDDEN = set("attacks gradients tracing judge threat classifier objectives randomness averaging".split())


@pytest.fixture
def audit(tmp_path):
    small_audit(tmp_path / "out", f"{write_target(tmp_path)}:linear")
    return tmp_path / "out"


def failed(folder, **options) -> set[str]:
    return {check.name for check in verify(folder, **options).checks if not check.holds}


def change_evidence(folder, **changes):
    write_evidence(folder, dataclasses.replace(read_evidence(folder), **changes))


def change_report(folder, **changes):
    path = folder / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_it_shares_no_code_with_the_attacks():
    """Follows the imports of verify.py through the whole package, but for defences of ours in front of a target.

    Those are the network under audit, as a user's own file is that imports this package.
    """
    root = Path(unmask.__file__).parent
    the_target = root / "target" / "defended.py"
    seen, todo = {the_target}, [root / "audit" / "verify.py"]
    while todo:
        file = todo.pop()
        seen.add(file)
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                package = file.parents[node.level - 1] if node.level else root.parent
                base = package.joinpath(*(node.module or "").split("."))
                names = [str(base)] + [str(base / alias.name) for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [str(root.parent.joinpath(*alias.name.split("."))) for alias in node.names]
            for name in names:
                for found in (Path(f"{name}.py"), Path(name, "__init__.py")):
                    inside = found.is_file() and root in found.parents and found != root / "__init__.py"
                    if inside and found not in seen:
                        todo.append(found)
    touched = {file.relative_to(root).parts[0].removesuffix(".py") for file in seen}
    assert "audit" in touched
    assert "data" in touched
    assert not touched & FORBIDDEN


def test_sound_evidence_is_verified(audit):
    outcome = verify(audit)
    assert outcome.holds, outcome.checks
    assert outcome.verified == outcome.total
    assert 5 < outcome.total < EXAMPLES
    report = json.loads((audit / "report.json").read_text())
    assert report["robust_accuracy"] == pytest.approx(1 - outcome.total / EXAMPLES)


def test_the_whole_module_is_asked_and_not_what_it_calls_its_network(tmp_path):
    small_audit(tmp_path / "out", f"{write_target(tmp_path)}:with_a_network")
    outcome = verify(tmp_path / "out")
    assert outcome.holds, outcome.checks


def test_an_audit_that_found_nothing_is_verified(tmp_path):
    spec = f"{write_target(tmp_path)}:linear"
    network, _ = build(spec)
    data = load("digits", examples=EXAMPLES)
    right = network(data.x).argmax(1) == data.y
    first_wrong = int((~right).nonzero()[0, 0]) if (~right).any() else EXAMPLES
    data = load("digits", examples=first_wrong)
    write_audit(tmp_path / "out", spec, data, data.x, torch.zeros(len(data)), network, clean=1.0, claim=0.5)
    outcome = verify(tmp_path / "out")
    assert outcome.holds, outcome.checks
    assert outcome.total == 0


def test_outside_the_ball(audit):
    evidence = read_evidence(audit)
    x_adv = evidence.x_adv.clone()
    clean = load("digits").x[evidence.index[3]]
    x_adv[3, 0, 0, 0] = clean[0, 0, 0] + EPSILON + 1e-6  # the corner of every digit is black
    change_evidence(audit, x_adv=x_adv)
    outcome = verify(audit)
    check = next(c for c in outcome.checks if "ball" in c.name)
    assert not check.holds
    assert f"not example {evidence.index[3]}" in check.found
    assert outcome.verified == outcome.total - 1
    assert not next(c for c in outcome.checks if c.name == "robust accuracy").holds


@pytest.mark.parametrize(
    ("value", "name"), [(-0.05, "in the box [0, 1]"), (1.05, "in the box [0, 1]"), (float("nan"), "finite")]
)
def test_outside_the_box_or_not_finite(audit, value, name):
    x_adv = read_evidence(audit).x_adv.clone()
    x_adv[0, 0, 0, 0] = value
    change_evidence(audit, x_adv=x_adv)
    assert name in failed(audit)


def test_not_misclassified(audit):
    evidence = read_evidence(audit)
    data = load("digits", examples=EXAMPLES)
    network, _ = build(evidence.target)
    right = (network(data.x).argmax(1) == data.y)[evidence.index].nonzero()[0, 0]
    x_adv = evidence.x_adv.clone()
    x_adv[right] = data.x[evidence.index[right]]
    change_evidence(audit, x_adv=x_adv)
    assert failed(audit) == {"misclassified", "seen as stated", "robust accuracy"}


@pytest.mark.parametrize("what", ["duplicate", "beyond", "negative"])
def test_bad_index(audit, what):
    evidence = read_evidence(audit)
    index = evidence.index.clone()
    index[1] = {"duplicate": int(index[0]), "beyond": EXAMPLES, "negative": -1}[what]
    change_evidence(audit, index=index)
    assert "in the data set, once" in failed(audit)


def test_a_duplicate_is_counted_once(audit):
    evidence = read_evidence(audit)
    twice = torch.cat([torch.arange(len(evidence.index)), torch.tensor([0])])
    fields = ("x_adv", "index", "label", "prediction", "failure_rate")
    change_evidence(
        audit,
        **{f: getattr(evidence, f)[twice] for f in fields},
        originals=hash_images(load("digits").x[evidence.index[twice]]),
    )
    outcome = verify(audit)
    assert {c.name for c in outcome.checks if not c.holds} == {"in the data set, once"}
    assert outcome.verified == outcome.total - 1


def test_wrong_label(audit):
    label = read_evidence(audit).label.clone()
    label[2] = (label[2] + 1) % 10
    change_evidence(audit, label=label)
    assert "true label" in failed(audit)


def test_other_images(audit):
    change_evidence(audit, originals="0" * 64)
    assert failed(audit) == {"clean images"}


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"robust_accuracy": 0.123}, "robust accuracy"),
        ({"clean_accuracy": 0.5}, "clean accuracy"),
        ({"verdict": "not_refuted"}, "interval and verdict"),
        ({"robust_accuracy_interval": [0.0, 1.0]}, "interval and verdict"),
        ({"passes": 3}, "one audit"),
        ({"threat": {"norm": "linf", "epsilon": 2 * EPSILON, "goal": "untargeted"}}, "one audit"),
        ({"threat": {"norm": "l2", "epsilon": EPSILON, "goal": "untargeted"}}, "one audit"),
    ],
)
def test_a_report_that_says_something_else(audit, change, name):
    change_report(audit, **change)
    assert name in failed(audit)


def test_another_checkpoint(audit, tmp_path):
    file = tmp_path / "nearest_mean.py"
    file.write_text(file.read_text().replace("2 * means", "2.001 * means"))
    assert "checkpoint" in failed(audit)


def test_a_moved_target(audit, tmp_path):
    (tmp_path / "nearest_mean.py").rename(tmp_path / "elsewhere.py")
    with pytest.raises(UnusableInput, match="there is no file"):
        verify(audit)
    assert verify(audit, target=f"{tmp_path / 'elsewhere.py'}:linear").holds


def test_missing_and_damaged_reports(audit, tmp_path):
    with pytest.raises(UnusableInput, match=r"there is no .*report\.json"):
        verify(tmp_path / "nowhere")
    change_report(audit, schema=2)
    with pytest.raises(UnusableInput, match="not a report of schema 1"):
        verify(audit)


def random_audit(folder, stated, n=200):
    """`coin` lies with probability 0.4, whatever the input, so its failure rate is about that."""
    spec = f"{write_target(folder)}:coin"
    network, _ = build(spec)
    whole = load("digits", examples=n)
    draws = final_draws(1, stochastic=True)
    rates = (torch.rand(n, draws) < stated).double().mean(1)
    write_audit(
        folder / "out", spec, whole, whole.x, rates, network,
        clean=0.55, claim=0.9, draws=draws, stochastic=True,
    )  # fmt: skip
    return folder / "out"


def test_a_random_network_is_judged_on_fresh_draws(tmp_path):
    torch.manual_seed(1)
    folder = random_audit(
        tmp_path, 0.45
    )  # nearest mean errs on a tenth of the digits, and then a lie is the truth
    names = failed(folder)
    assert "fails as often as stated" not in names
    assert "robust accuracy" not in names


@pytest.mark.parametrize("stated", [0.75, 0.1])
def test_a_lucky_draw_is_no_evidence(tmp_path, stated):
    torch.manual_seed(1)
    assert "mean failure rate" in failed(random_audit(tmp_path, stated))


def test_the_global_random_state_is_left_alone(audit):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    verify(audit)
    assert torch.equal(torch.get_rng_state(), before)
