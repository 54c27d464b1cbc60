"""The whole story with the real engine: audit, evidence, verify, and a kill in between."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.faults.audits import without_clock

from unmask.cli.demo import write_defence
from unmask.cli.main import main


def test_the_demo_refutes_names_the_line_and_verifies(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    source = (tmp_path / "unmask-demo" / "demo_defence.py").read_text().splitlines()
    line = next(n for n, text in enumerate(source, 1) if "torch.round" in text)
    for part in (
        "REFUTED",
        f"demo_defence.py:{line}",
        source[line - 1].strip(),
        "Verified: ",
        "standard attack",
    ):
        assert part in out
    report = json.loads((tmp_path / "unmask-demo" / "audit" / "report.json").read_text())
    assert [finding["mechanism"] for finding in report["masking"]] == ["shattered"]
    assert report["naive_robust_accuracy"] > report["claim"]
    assert report["robust_accuracy"] < 0.1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    options = [f"{write_defence(folder)}:defended", "--norm", "linf", "--epsilon", "0.2", "--examples", "24"]
    assert main(["audit", *options, "--quiet", "--out", str(folder / "whole")]) == 0
    return options, folder / "whole"


@pytest.mark.parametrize("how", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGINT])
def test_killed_and_resumed_is_the_same_as_undisturbed(undisturbed, tmp_path, how):
    (options, whole), broken = undisturbed, tmp_path / "broken"
    command = [sys.executable, "-m", "unmask", "audit", *options, "--quiet", "--out", str(broken)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and len(list((broken / "journal").glob("*.entry"))) < 2:
        time.sleep(0.002)
    os.kill(process.pid, how)
    _, err = process.communicate()
    if process.returncode == 0:
        pytest.skip("the audit was over before the signal reached it")
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    if how == signal.SIGINT:
        assert f"unmask audit --resume {broken}" in err
    assert not (broken / "report.json").exists()
    assert main(["audit", "--resume", str(broken), "--quiet"]) == 0
    first, second = (json.loads((folder / "report.json").read_text()) for folder in (whole, broken))
    assert without_clock(first) == without_clock(second)
    evidence = "evidence.safetensors"
    assert (whole / evidence).read_bytes() == (broken / evidence).read_bytes()
