"""`unmask reproduce sap --quick`: that every row runs, resumes, and says what it must on a small network."""

import json

import pytest

from unmask.cli.main import main


def test_one_row_then_the_same_row_again_costs_nothing(tmp_path, capsys):
    words = ["reproduce", "sap", "--quick", "--only", "clean, vanilla", "--out", str(tmp_path)]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "clean, vanilla network" in first.err
    assert first.out.startswith("| | published | ours, 95 % interval |")
    assert "not run" in first.out
    stored = json.loads((tmp_path / "results.json").read_text())
    row = stored["rows"]["clean, vanilla network"]
    assert row["value"] > 0.95
    assert row["interval"][0] < row["value"] < row["interval"][1]
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == first.out
    assert again.err == ""


def test_an_unknown_name_or_another_seeds_folder_is_one_line(tmp_path, capsys):
    assert main(["reproduce", "nothing"]) == 2
    assert "sap" in capsys.readouterr().err
    (tmp_path / "results.json").write_text('{"settings": {"seed": 7}, "rows": {}}')
    assert main(["reproduce", "sap", "--quick", "--out", str(tmp_path)]) == 2
    assert "another --out" in capsys.readouterr().err
    (tmp_path / "results.json").write_text("{")
    assert main(["reproduce", "sap", "--quick", "--out", str(tmp_path)]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.slow
def test_the_story_in_small(tmp_path):
    assert main(["reproduce", "sap", "--quick", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    value = {name: row.get("value") for name, row in rows.items()}
    assert value["clean, vanilla network"] > 0.95
    assert abs(value["clean, SAP r = 1x, mean of 30"] - value["clean, vanilla network"]) < 0.03
    assert value["BPDA through the vanilla network, r = 1x"] <= 0.02
    assert value["transfer from the vanilla network, targeted"] > 0.7
    # Without BPDA the same number of steps gets less far, targeted.
    assert value["no BPDA, targeted, 10 iterations"] < value["BPDA through the vanilla network, targeted"]
    assert (
        rows["cost of one forward"]["ratio"]["multinomial"]
        > rows["cost of one forward"]["ratio"]["bernoulli"]
    )
