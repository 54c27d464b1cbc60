"""How a script finds its network, and what it says of an audit that searched further."""

import sys

import pytest
import torch
from tests.report.sample import refuted
from tests.report.script.test_write import record

from unmask.audit.records import AttackRecord
from unmask.report.script.write import write_script

NET = "import torch\ndef build():\n    return torch.nn.Linear(2, 2)\n"


def stage(recipe, ascent):
    return AttackRecord(
        recipe=recipe,
        ascent=ascent,
        newly_broken=1,
        robust_accuracy=0.5,
        forwards=1,
        backwards=1,
        seconds=0.0,
    )


def script_at(path, target, from_script=""):
    path.parent.mkdir(exist_ok=True)
    report = refuted(path.parent / "defence.py")
    walk = stage("walks: boundary walk of 40 steps", "none")
    made = write_script(
        report.model_copy(update={"attacks": [walk]}), record({"kind": "Exact"}), target=target, classes=2,
        script_file=path.name, data_file=f"{path.stem}.pt", imports_unmask=False, from_script=from_script,
    )  # fmt: skip
    path.write_text(made.text)
    names = {"__name__": "attack", "__file__": str(path)}
    exec(compile(made.text, str(path), "exec"), names)
    return names, made


def test_a_relative_target_is_found_and_is_never_the_script(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    script, made = script_at(tmp_path / "out" / "net.py", "net.py:build", "../net.py")
    monkeypatch.setattr("sys.path", ["out"])
    monkeypatch.setattr("sys.modules", dict(sys.modules))
    for folder in (tmp_path, tmp_path / "out"):
        monkeypatch.chdir(folder)
        assert isinstance(script["load"]("net.py:build"), torch.nn.Linear)
    assert made.not_run == ("walks: boundary walk of 40 steps",)
    assert made.not_run == script["NOT_RUN"]


@pytest.mark.parametrize(
    "target", ["itself.py:build", "elsewhere.py:build", "itself:build", "nowhere.at:build"]
)
def test_what_is_not_found_is_one_line(tmp_path, monkeypatch, target):
    script, _ = script_at(tmp_path / "itself.py", target)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(SystemExit, match="--target"):
        script["load"](target)


@pytest.mark.parametrize(
    ("gradient", "not_run"),
    [
        ({"kind": "Exact"}, ("PGD that walks", "steps of slopes")),
        ({"kind": "FiniteDifference", "delta": 0.01}, ("PGD that walks",)),
    ],
)
def test_what_is_not_run_is_told_by_the_attack_and_not_by_its_words(tmp_path, gradient, not_run):
    stages = [
        stage("a climb", "autograd"),
        stage("PGD that walks", "none"),
        stage("steps of slopes", "differences"),
        stage("of an older report", None),
    ]
    report = refuted(tmp_path / "defence.py").model_copy(update={"attacks": stages})
    made = write_script(
        report, record(gradient), target="net.py:build", classes=2, script_file="a.py", data_file="a.pt",
        imports_unmask=False,
    )  # fmt: skip
    assert made.not_run == not_run
    assert made.theirs == len(not_run) / report.examples


def test_the_exact_gradient_is_told_by_its_kind(tmp_path):
    exact = {"kind": "EOT", "inner": {"kind": "Exact"}, "draws": None, "max_draws": 8}
    told = record(exact)
    told["entrants"] = [
        {
            "name": "as the network is",
            "left": 0.1,
            "winner": None,
            "objective": "margin_loss",
            "gradient": exact,
        },
        *told["entrants"],
    ]
    made = write_script(
        refuted(tmp_path / "defence.py"), told, target="net.py:build", classes=2, script_file="a.py",
        data_file="a.pt", imports_unmask=False,
    )  # fmt: skip
    assert "as the network is" not in made.gradients
