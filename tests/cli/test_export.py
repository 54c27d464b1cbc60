"""What other tools are given is well-formed and says what the report says."""

import csv
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from tests.report.sample import refuted

from unmask.audit.evidence import Evidence, write_evidence
from unmask.cli.main import main
from unmask.report.json import write_json


def evidence(report, index=(3, 7, 11)):
    n = len(index)
    return Evidence(
        x_adv=torch.rand(n, 1, 8, 8),
        index=torch.tensor(index),
        label=torch.zeros(n, dtype=torch.int64),
        prediction=torch.ones(n, dtype=torch.int64),
        failure_rate=torch.ones(n),
        originals="0" * 64,
        threat=report.threat,
        data=report.data,
        split=report.split,
        target=report.target,
        checkpoint_hash="",
        passes=1,
        draws=1,
    )


@pytest.fixture
def audited(tmp_path):
    report = refuted(tmp_path / "defence|odd.py")
    folder = tmp_path / "audit"
    write_json(folder, report)
    write_evidence(folder, evidence(report))
    return folder, report


def test_tables(audited, tmp_path):
    folder, report = audited
    assert main(["export", str(folder), "--csv", "--out", str(tmp_path / "out")]) == 0
    with (tmp_path / "out" / "attacks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["recipe"] for row in rows] == [a.recipe for a in report.attacks]
    assert float(rows[0]["robust_accuracy"]) == report.attacks[0].robust_accuracy


def test_junit_counts_what_failed(audited):
    folder, report = audited
    assert main(["export", str(folder), "--junit"]) == 0
    suite = ET.parse(folder / "junit.xml").getroot()
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert "claim of 83 %" in failed
    assert len(failed) == 1 + sum(c.passed is False for c in report.controls) == int(suite.get("failures"))
    assert int(suite.get("tests")) == 1 + len(report.controls)


def test_sarif_points_at_the_line(audited, monkeypatch, tmp_path):
    folder, report = audited
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(folder), "--sarif"]) == 0
    log = json.loads((folder / "findings.sarif").read_text())
    (result,) = log["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "defence|odd.py"
    assert place["region"]["startLine"] == report.masking[0].line
    assert result["ruleId"] in {rule["id"] for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    assert result["level"] == "error"


def test_markdown_keeps_its_table(audited):
    folder, _ = audited
    assert main(["export", str(folder), "--markdown"]) == 0
    text = (folder / "report.md").read_text()
    assert text.startswith("## Refuted")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)


@pytest.mark.parametrize("kind", ["npz", "safetensors", "pt"])
def test_adversarial_examples(audited, tmp_path, kind):
    folder, _ = audited
    file = tmp_path / f"x.{kind}"
    assert main(["export", str(folder), "--adversarial", str(file)]) == 0
    if kind == "npz":
        found = dict(np.load(file))
    elif kind == "pt":
        found = torch.load(file, weights_only=True)
    else:
        from safetensors.torch import load_file

        found = load_file(file)
    assert found["index"].tolist() == [3, 7, 11]
    assert found["x"].shape == (3, 1, 8, 8)


def test_plots(audited):
    folder, _ = audited
    assert main(["export", str(folder), "--plots"]) == 0
    assert all(ET.parse(file) is not None for file in folder.glob("*.svg"))
    assert list(folder.glob("*.svg"))


@pytest.mark.parametrize(
    "arguments",
    [["--csv"], [], ["--adversarial", "x.txt"]],
    ids=["no folder", "nothing asked", "unknown kind"],
)
def test_what_cannot_be_written_is_one_line(audited, tmp_path, capsys, arguments):
    folder = tmp_path / "absent" if arguments == ["--csv"] else audited[0]
    assert main(["export", str(folder), *arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_damaged_report_is_one_line(audited, capsys):
    folder, _ = audited
    (folder / "report.json").write_text('{"verdict": 3}')
    assert main(["export", str(folder), "--csv"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_audits_side_by_side(audited, tmp_path, capsys):
    folder, report = audited
    other = tmp_path / "other"
    write_json(other, report)
    write_evidence(other, evidence(report, index=(7, 11, 20, 21)))
    assert main(["compare", str(folder), str(other), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    (pair,) = said["overlaps"]
    assert (pair["both"], pair["first_alone"], pair["second_alone"]) == (2, 1, 2)
    assert pair["neither"] == report.examples - 5
    assert said["table"]["verdict"] == {str(folder): "Refuted", str(other): "Refuted"}
    assert main(["compare", str(folder), str(other)]) == 0
    assert "2 examples broke in both" in " ".join(capsys.readouterr().out.split())


def test_other_examples_are_not_matched(audited, tmp_path, capsys):
    folder, report = audited
    other = tmp_path / "other"
    write_json(other, report.model_copy(update={"examples": report.examples - 1}))
    write_evidence(other, evidence(report))
    assert main(["compare", str(folder), str(other), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["overlaps"] == []
    assert main(["compare", str(folder), str(other)]) == 0
    assert "another number of examples, so that no examples are matched" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main(["compare", str(folder)]) == 2
