"""`unmask reproduce clever --quick`: fragile models are called robust, and every such score is marked."""

import json

import numpy as np
import pytest
import torch

from unmask.cli.main import main
from unmask.reproducing.papers import paper
from unmask.reproducing.request import Request


def test_one_row_by_the_command_line(tmp_path, capsys):
    words = ["reproduce", "clever", "--quick", "--out", str(tmp_path), "--only", "ramp, delta = 1e-07"]
    assert main(words) == 0
    assert "4 misled, 0 of them unmarked" in capsys.readouterr().out
    row = json.loads((tmp_path / "results.json").read_text())["rows"]["ramp, delta = 1e-07, linf"]
    assert row["misled"] == row["images"] == 4
    assert row["misled_unmarked"] == 0
    assert row["clever"] == 0.3
    assert (tmp_path / "clever_against_delta.png").stat().st_size > 5000


def test_as_the_ramps_shrink_the_score_falls_and_then_jumps():
    module = paper("clever")
    rows = module.rows(module.Story(Request(quick=True)))
    plain = rows["the network itself, linf"][1]()
    assert plain["clever"] < plain["attack"] < 0.3
    assert plain["marks"] == {"refuted": 0, "unreliable": 0, "unrefuted": plain["images"]}
    stairs = rows["staircase, c = 255, linf"][1]()
    assert (stairs["clever"], stairs["zero_gradients"]) == (0.3, 1.0)
    assert stairs["attack"] < 1.2 * plain["attack"]
    # A slope that is seldom seen but steep: CLEVER is far too low before it is far too high.
    assert rows["ramp, delta = 0.01, linf"][1]()["clever"] < plain["clever"]


def test_saturated_units_mislead_it_and_every_such_score_is_marked():
    module = paper("clever")
    story = module.Story(Request(quick=True, examples=2))
    rows = module.rows(story)
    row = rows["sharpened sigmoid units, linf"][1]()
    assert len(row["scores"]) == len(row["distances"]) == row["images"] == 2
    assert row["misled"] == sum(s >= d for s, d in zip(row["scores"], row["distances"], strict=True))
    assert row["misled_unmarked"] == 0
    assert row["zero_gradients"] > 0.5
    text = module.describe(row)
    assert ("ART" in text) == (row["art"] is not None)


def test_arts_score_leaves_the_global_stream_where_it_was():
    pytest.importorskip("art.metrics", reason="adversarial-robustness-toolbox is not installed")
    module = paper("clever")
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 10))
    clever = module.Clever(batches=10, samples=4)
    before = np.random.get_state()[1].copy()
    x = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    found = module.by_art(network, x, module.L2(epsilon=0.5), clever, 0)
    assert found == module.by_art(network, x, module.L2(epsilon=0.5), clever, 0)
    assert (np.random.get_state()[1] == before).all()
