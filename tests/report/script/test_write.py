"""The script that is handed out: it breaks what the audit breaks, by itself, and says what it cannot do."""

import ast
import json
import sys
from pathlib import Path

import pytest
import torch
from tests.fixtures.catalogue import BROKEN
from tests.report.sample import refuted
from tests.report.script.alone import run

from unmask.audit.campaign.entrants import FILE, source_folder, write_entrants
from unmask.audit.campaign.race import Race
from unmask.audit.context import subject_of
from unmask.audit.evidence import Evidence, write_evidence
from unmask.audit.prepare import look_over, looked_over, trace
from unmask.claim.claim import claim_about
from unmask.cli.main import main
from unmask.data import load
from unmask.remedies import candidates
from unmask.report.json import write_json
from unmask.report.script.write import write_script
from unmask.state import State
from unmask.target.target import load_target
from unmask.threat import threat_model
from unmask.tracing.repair.rules import fitted

EXAMPLES = 16
SOME = ("bit_depth", "threshold_where", "no_grad_block", "pil_jpeg", "lying_zeros")


def folder_of(case, folder: Path) -> Path:
    """An audit's folder, of which only the trace was run: the first repair that it proposes has won."""
    target, data = load_target(case.target), load("digits", examples=EXAMPLES)
    threat = threat_model(case.norm, case.epsilon)
    subject = subject_of(
        target, data, claim_about(threat), out=folder, resume=False, progress=None, attacks=()
    )
    with subject.writing():
        facts, size = look_over(subject, State(subject.classifier.network))
        subject = looked_over(subject, facts, size, None)
        analysis, *_ = trace(subject, facts)
    entrants = candidates(analysis, subject.threat, deterministic=not subject.random, detector=False, draws=8)
    race = Race(entrants[:2], torch.tensor([[0.0], [1.0]]))
    write_entrants(subject, facts, entrants, race, analysis, source_folder(target))
    report = refuted(folder / "defence.py").model_copy(
        update={
            "target": case.target,
            "data": "digits",
            "split": data.split,
            "examples": EXAMPLES,
            "threat": subject.threat_record(),
            "sample_seed": None,
            "masking": [],
        }
    )
    write_json(folder, report)
    nothing = torch.empty(0, dtype=torch.int64)
    write_evidence(
        folder,
        Evidence(
            x_adv=data.x[:0],
            index=nothing,
            label=nothing,
            prediction=nothing,
            failure_rate=torch.empty(0),
            originals="0" * 64,
            threat=report.threat,
            data=report.data,
            split=report.split,
            target=report.target,
            checkpoint_hash="",
            passes=1,
            draws=1,
        ),
    )
    return folder


def test_five_scripts_break_their_networks_without_unmask(tmp_path):
    scripts = []
    for case in BROKEN:
        if case.name in SOME:
            folder = folder_of(case, tmp_path / case.name)
            scripts.append(tmp_path / f"{case.name}_attack.py")
            assert main(["export", str(folder), "--script", str(scripts[-1])]) == 0
    assert len(scripts) == len(SOME)
    for script, said in zip(scripts, run(scripts, tmp_path, "--steps", "25"), strict=True):
        assert said["no attack"] >= 85, script.name
        assert said["standard attack, exact gradient"] >= 60, script.name
        assert said["this attack"] <= 2, script.name
        assert said["the audit's own points, replayed"] == said["no attack"], script.name  # none were found


def record(gradient, **more):
    entrant = {
        "name": "the winner",
        "left": 0.0,
        "winner": 0,
        "objective": "MarginLoss",
        "gradient": gradient,
    }
    reads = {"probabilities": False, "alone": False, "detector": False, "classes": 10}
    return {"schema": 1, "reads": reads, "leaves_torch": [], "entrants": [entrant], **more}


def written(tmp_path, gradients, **more):
    arguments = {
        "target": "net.py:build",
        "script_file": "a.py",
        "data_file": "a.pt",
        "imports_unmask": False,
    }
    return write_script(refuted(tmp_path / "defence.py"), gradients, classes=10, **{**arguments, **more})


def rewrite(*rules, **more):
    told = {"rules": list(rules), "bridges": [], "heal_cuts": False, "soften": None, **more}
    return {"kind": "Repaired", "rewrite": told, "inner": {"kind": "Exact"}}


def rule(kind, operation, **more):
    at = {
        "operation": operation,
        "kind": "torch",
        "file": "net.py",
        "line": 7,
        "code": "x = f(x)",
        "module": None,
        "inside": None,
    }
    return {"kind": kind, "at": {**at, **more.pop("at", {})}, **more}


def test_the_operation_is_spelt_out_at_its_line(tmp_path):
    made = written(tmp_path, record(rewrite(rule("Smooth", "round", width=0.1))))
    assert '@repair("the winner", "round", "net.py", 7)' in made.text
    assert made.gradients == ("the winner",)
    assert made.left_out == ()
    compile(made.text, "attack.py", "exec")


@pytest.mark.parametrize(
    "gradient",
    [
        {"kind": "BPDA"},
        rewrite(rule("Measure", "quantized_linear")),
        rewrite(rule("PassThrough", "vmap of snap", at={"kind": "opaque"})),
        rewrite(rule("Smooth", "mode", width=0.1)),
        rewrite(rule("Smooth", "round", width=0.1, at={"inside": ["library/a.py", 3]})),
    ],
    ids=[
        "a surrogate of its own",
        "a measured slope",
        "a closed function",
        "no surrogate as code",
        "inside a library",
    ],
)
def test_what_is_no_plain_code_is_replayed_and_said(tmp_path, gradient):
    made = written(tmp_path, record(gradient))
    assert made.gradients == ()
    assert made.left_out == ("the winner",)
    assert "Nothing of that can be written as plain code" in made.text
    assert '"this attack"' not in made.text
    compile(made.text, "attack.py", "exec")


@pytest.mark.parametrize("kind", ["EOT", "Smoothing", "LogitScale"])
def test_gradients_compose(tmp_path, kind):
    more = {
        "EOT": {"draws": None, "max_draws": 16},
        "Smoothing": {"sigma": 0.1, "draws": 8},
        "LogitScale": {},
    }
    inner = rewrite(rule("Gain", "tanh", gain=0.2), rule("Keep", "sqrt"), heal_cuts=True)
    made = written(tmp_path, record({"kind": kind, **more[kind], "inner": inner}))
    compile(made.text, "attack.py", "exec")
    assert 'repaired("the winner", uncut=True)' in made.text


FILTER = tuple(float(n) for n in range(25))
FITS = {
    "the same": (("same",), (2, 3, 8, 8), (2, 3, 8, 8)),
    "turned": (("permute", (0, 2, 3, 1)), (2, 3, 8, 6), (2, 8, 6, 3)),
    "resized": (("resize",), (2, 3, 8, 8), (2, 3, 6, 6)),
    "a filter over pictures": (("filter", FILTER, 2, ("same",)), (2, 3, 8, 8), (2, 3, 8, 8)),
    "a filter over what is turned": (("filter", FILTER, 2, ("permute", (0, 2, 1))), (3, 6, 8), (3, 8, 6)),
    "a filter over resized pictures": (("filter", FILTER, 2, ("resize",)), (2, 3, 8, 8), (2, 3, 6, 6)),
    "a filter over rows": (("filter", FILTER[:5], 1, ("same",)), (4, 16), (4, 16)),
    "a rank of pictures": (("rank", 4, 2, 9, ("same",)), (2, 3, 8, 8), (2, 3, 8, 8)),
    "a rank of rows": (("rank", 1, 1, 5, ("permute", (1, 0))), (8, 4), (4, 8)),
    "a rank of squares in rows": (("rank", 4, 0, 9, ("same",)), (3, 64), (3, 64)),
    "a filter over squares in rows": (("filter", FILTER, 0, ("same",)), (3, 64), (3, 64)),
    "a curve": (("curve", -0.2, 0.3, (0.0, 0.5, 0.4, 1.0)), (4, 16), (4, 4, 4)),
}


@pytest.mark.parametrize("name", FITS)
def test_a_bridge_shapes_what_went_in_as_the_audit_does(tmp_path, name):
    """The kinds are all that the audit has: one more without plain code would go unnoticed as the identity."""
    fit, given, shape = FITS[name]
    end = {"operation": "numpy", "file": "n.py", "line": 7, "code": "", "module": None, "inside": None}
    bridge = {"source": end, "target": end, "slope": 1.0, "output": 0, "pairing": "each", "fit": fit}
    bridge |= {"argument": None, "learned": False, "alone": False}
    told = json.loads(json.dumps(record(rewrite(bridges=[bridge]))))
    script = {"__name__": "attack", "__file__": str(tmp_path / "attack.py")}
    exec(compile(written(tmp_path, told).text, "attack.py", "exec"), script)
    (there,) = script["BRIDGES"]["the winner"]
    assert there["fit"] == fit
    x = torch.rand(given, generator=torch.Generator().manual_seed(0))
    made = script["fitted"](x, there["fit"], torch.Size(shape)).reshape(shape)
    torch.testing.assert_close(made, fitted(x, fit, shape))


@pytest.mark.parametrize(
    ("kind", "operation", "place", "call"),
    [
        ("PassThrough", "scripted Snap", "opaque module", "straight_through_opaque(network)"),
        ("Keep", "Linear with backward hooks", "hook", "without_hooks(network)"),
    ],
)
def test_what_a_place_is_decides_and_not_what_it_is_called(tmp_path, kind, operation, place, call):
    made = written(tmp_path, record(rewrite(rule(kind, operation, at={"kind": place}))))
    assert call in made.text
    other = written(tmp_path, record(rewrite(rule(kind, operation, at={"kind": "function"}))))
    assert call not in other.text


def test_it_imports_torch_and_the_standard_library_alone(tmp_path):
    for gradient in (
        rewrite(rule("Smooth", "topk", width=0.1)),
        {"kind": "Float64", "inner": {"kind": "Exact"}},
    ):
        tree = ast.parse(written(tmp_path, record(gradient)).text)
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert {name.split(".")[0] for name in names} <= {"torch", *sys.stdlib_module_names}


def test_no_part_is_written_that_nothing_uses(tmp_path):
    made = written(tmp_path, record(rewrite(rule("Smooth", "round", width=0.1))))
    for part in (
        "BRIDGES",
        "mean_over_draws",
        "in_float64",
        "def chosen",
        "import copy",
        "finite_differences",
    ):
        assert part not in made.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "net.onnx"}, "wrap it in a callable"),
        ({"target": "net.py:build + jpeg(quality=75)"}, "wrap it in a callable"),
        ({"knowledge": "scores"}, "does not see the network"),
        ({}, "audit again"),
    ],
    ids=["another source", "a defence of ours", "another adversary", "an older audit"],
)
def test_what_has_no_script_is_one_line(tmp_path, capsys, change, says):
    report = refuted(tmp_path / "defence.py").model_copy(update=change)
    write_json(tmp_path, report)
    if change:
        (tmp_path / FILE).write_text(json.dumps(record({"kind": "Exact"})))
    assert main(["export", str(tmp_path), "--script", str(tmp_path / "a.py")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert says in said


def test_a_record_from_somebody_else_writes_no_code_of_its_own(tmp_path):
    """What stands in the audit's folder may have been written by anybody."""
    at = {
        "code": "x\nraise SystemExit(9)\n",
        "file": 'n.py", 7); raise SystemExit(9) #',
        "operation": "round",
    }
    told = record(rewrite(rule("Smooth", "round", width=0.1, at=at)))
    told["entrants"][0]["name"] = 'w"""\nraise SystemExit(9)\n"""'
    tree = ast.parse(written(tmp_path, told).text)
    assert not any(isinstance(n, ast.Name) and n.id == "SystemExit" for n in ast.walk(tree))


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"reads": {"classes": 3}}'])
def test_a_damaged_record_is_one_line(tmp_path, capsys, damage):
    case = next(case for case in BROKEN if case.name == "bit_depth")
    folder = folder_of(case, tmp_path / "audit")
    (folder / FILE).write_text(damage)
    assert main(["export", str(folder), "--script", str(tmp_path / "a.py")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("returns", "average", "winner"),
    [(False, None, 0), (False, "probabilities", 1), (True, None, 1), (True, "logits", 0)],
)
def test_a_prediction_is_the_mean_that_was_audited(tmp_path, returns, average, winner):
    gradients = record({"kind": "Exact"})
    gradients["reads"]["probabilities"] = returns
    report = refuted(tmp_path / "defence.py").model_copy(update={"passes": 3, "average": average})
    words = {"target": "net.py:build", "script_file": "a.py", "data_file": "a.pt", "imports_unmask": False}
    text = write_script(report, gradients, classes=2, **words).text
    script = {"__name__": "attack", "__file__": str(tmp_path / "attack.py")}
    exec(compile(text, "attack.py", "exec"), script)
    passes = [torch.tensor([[9.0, 0.0]]), torch.tensor([[-2.0, 0.0]]), torch.tensor([[-2.0, 0.0]])]

    def network(x):
        passes.append(passes.pop(0))
        return passes[-1].softmax(1) if returns else passes[-1]

    predicted, counts = script["predict"](network, torch.zeros(1, 2))
    assert predicted.tolist() == [winner]
    assert counts.all()
