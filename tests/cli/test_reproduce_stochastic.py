"""`unmask reproduce lecture-defenses --quick`, random defences: one draw, EOT, BPDA with EOT, and the audit."""

import json

import pytest

from unmask.cli.main import main
from unmask.reproducing.papers import paper


def rows(tmp_path, *words):
    assert main(["reproduce", "lecture-defenses", "--quick", "--out", str(tmp_path), *words]) == 0
    return json.loads((tmp_path / "results.json").read_text())["rows"]


def test_every_column_has_its_own_count_and_interval(tmp_path, capsys):
    words = ["--only", "digits, random: JPEG", "--examples", "10", "--steps", "10"]
    row = rows(tmp_path, *words)["digits, random: JPEG"]
    assert row["images"] == 10
    assert set(row["columns"]) == {"clean", "one draw", "BPDA", "audit"}  # nothing is random: EOT is one draw
    assert row["columns"]["one draw"]["value"] >= 0.8
    assert row["columns"]["BPDA"]["value"] <= 0.1
    assert row["columns"]["audit"]["value"] <= 0.1
    assert "shattered" in row["columns"]["audit"]["masking"]
    for column in row["columns"].values():
        low, high = column["interval"]
        assert low <= column["value"] <= high
        assert high - low > 0.2  # of ten images
    assert "BPDA" in capsys.readouterr().out


def test_gradients_that_differ_and_no_others():
    lecture = paper("lecture-defenses")
    stochastic = lecture.stochastic
    bench = lecture.benches.digits()
    plain = stochastic.Classifier(bench.networks["plain"], deterministic=True)
    found = {}
    for name, make in stochastic.defences(bench).items():
        defended = make().wrap(plain)
        found[name] = list(stochastic.gradients(make(), defended))
        assert defended.deterministic == (name == "JPEG")
    assert found.pop("JPEG") == ["one draw", "BPDA"]
    assert found.pop("JPEG, then noise") == ["one draw", "EOT", "BPDA and EOT"]
    assert set(map(tuple, found.values())) == {("one draw", "EOT")}


@pytest.mark.slow
def test_the_table_in_small(tmp_path):
    found = rows(tmp_path, "--only", "random:")
    assert len(found) == 6
    for name, row in found.items():
        columns = row["columns"]
        assert columns["clean"]["value"] > 0.5, name  # half of 64 pixels lost leave 0.64
        assert row["value"] <= 0.05, name  # by hand
        assert columns["audit"]["value"] <= row["value"] + 0.05, name  # told nothing
        if "JPEG" in name:  # more draws of a gradient that is not there
            assert columns["one draw"]["value"] > 0.9, name
