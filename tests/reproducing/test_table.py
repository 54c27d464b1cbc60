"""Rows over seeds, kept and written; interrupted runs go on."""

import json
from types import SimpleNamespace

import pytest
import torch

from unmask.errors import UnusableInput
from unmask.reproducing.request import Request
from unmask.reproducing.table import Table, environment, over_seeds

MODULE = SimpleNamespace(describe=lambda row: f"{100 * row.get('value', 0):.0f} %")
PUBLISHED = {"a": "50 %", "b": "-"}


def row(value, images=100):
    return {"value": value, "interval": [0.0, 1.0], "images": images, "seconds": 2.0}


def table(folder, **asked):
    return Table(folder, Request(name="sap", **asked), MODULE, PUBLISHED)


def test_a_row_says_images_seeds_seconds_and_its_command(tmp_path):
    found = table(tmp_path, seeds=2, examples=100)
    found.add("a", 0, row(0.4))
    found.add("a", 1, row(0.6))
    line = found.text().splitlines()[2]
    assert line == (
        "| a | 50 % | 50 %, over seeds 40.0 to 60.0 | 100 | 0, 1 | 4 | "
        "`unmask reproduce sap --examples 100 --seeds 2 --only a` |"
    )
    assert found.text().splitlines()[3] == "| b | - | not run | - | - | - | - |"


def test_more_seeds_are_no_more_images():
    both = over_seeds({0: row(0.4), 1: row(0.6)})
    assert both["value"] == pytest.approx(0.5)
    assert both["interval"] == pytest.approx([0.398, 0.602], abs=2e-3)  # of 50 in 100
    assert over_seeds({0: {"ratio": 2.0}, 1: {"ratio": 3.0}}) == {"ratio": 2.0}


def test_it_goes_on_with_the_rows_and_seeds_that_are_there(tmp_path):
    table(tmp_path).add("a", 0, row(0.4))
    again = table(tmp_path, seed=1)
    assert again.has("a", 0)
    assert not again.has("a", 1)
    again.add("a", 1, row(0.6))
    assert set(json.loads((tmp_path / "results.json").read_text())["rows"]["a"]["runs"]) == {"0", "1"}
    with pytest.raises(UnusableInput, match=r"was made with .*; give the same options or another --out"):
        table(tmp_path, examples=7)
    (tmp_path / "results.json").write_text('{"settings": 3}')
    with pytest.raises(UnusableInput, match="is damaged"):
        table(tmp_path)


def test_the_environment_is_measured():
    found = environment("cpu")
    assert found["device"] == "cpu"
    assert f"{torch.get_num_threads()} threads" in found["kind"]
    assert environment("meta")["device"] == "meta"
