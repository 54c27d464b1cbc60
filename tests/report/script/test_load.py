"""How a script finds its network, and what it says of an audit that searched further."""

import sys

import pytest
import torch
from tests.report.sample import refuted
from tests.report.script.test_write import record

from unmask.report.script.write import write_script

NET = "import torch\ndef build():\n    return torch.nn.Linear(2, 2)\n"


def script_at(path, target, from_script=""):
    path.parent.mkdir(exist_ok=True)
    report = refuted(path.parent / "defence.py")
    walk = report.attacks[0].model_copy(
        update={"recipe": "walks: boundary walk of 40 steps", "newly_broken": 1}
    )
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
