"""`unmask reproduce saturation --quick`: naive FGSM sees nothing in a saturated network, stable FGSM breaks it."""

import csv
import json

import pytest
import torch
from torch import nn

from unmask.cli.main import main
from unmask.reproducing.papers import paper
from unmask.reproducing.request import Request


def test_the_story_in_small(tmp_path):
    assert (
        main(["reproduce", "saturation", "--quick", "--only", "saturated relu", "--out", str(tmp_path)]) == 0
    )
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    value = {name.partition(": ")[2]: row.get("value") for name, row in rows.items()}
    assert value["clean"] > 0.8
    assert value["naive FGSM"] > 0.7
    assert value["stable FGSM"] < 0.12
    assert value["images whose whole gradient is zero"] > 0.65
    for figure in ("figure1", "figure2", "figureS1"):
        assert (tmp_path / f"{figure}_saturated_relu.png").exists()
    with (tmp_path / "figure1_saturated_relu.csv").open() as file:
        bins = list(csv.DictReader(file))
    zero = value["gradient elements exactly zero"]
    assert sum(float(b["share"]) for b in bins) == pytest.approx(1 - zero, abs=1e-6)


def test_the_tracer_says_where_each_gradient_becomes_zero():
    module = paper("saturation")
    part = module.Saturation("sharpened sigmoid", Request(quick=True, examples=40))
    found = {numbers: part.zeros(numbers)["origins"] for numbers in module.PRECISIONS}
    assert all(sum(places.values()) == 40 for places in found.values())
    assert found["float32"]["nowhere"] < 10
    assert set(found["float32"]) <= {"sigmoid 1", "sigmoid 2", "sigmoid 3", "nowhere"}
    assert found["float64"].get("nowhere", 0) >= found["float16"].get("nowhere", 0)
    zero = (part.gradients(1.0) == 0).all(1)  # the same by autograd alone
    assert found["float32"].get("nowhere", 0) == int((~zero).sum())


def test_a_zero_in_front_of_the_loss_is_the_soft_maxs(origins):
    network = nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[1].weight.copy_(torch.tensor([[1e4, 0.0], [0.0, 0.0]]))
        network[1].bias.zero_()
    x = torch.tensor([[[[1.0, 0.0]]], [[[1e-4, 0.0]]]])
    y = torch.tensor([0, 0])
    assert origins(network, x, y, "float32") == {"soft-max": 1, "nowhere": 1}
    blocked = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(2, 2))
    assert origins(blocked, -x, y, "float32") == {"relu 1": 2, "nowhere": 0}


def test_the_penalty_beside_the_loss_by_hand():
    """One hidden unit: relu(w x) with read-outs 1 and 0, so that both gradients have closed forms."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        network[0].weight.fill_(2.0)
        network[2].weight.copy_(torch.tensor([[1.0], [0.0]]))
        network[2].bias.zero_()
    x, y = torch.tensor([[1.0]]), torch.tensor([0])
    (ratio,) = paper("saturation").pulls(network, 0.01, x, y)
    slope = 1 - torch.sigmoid(torch.tensor(2.0)).item()  # of the cross-entropy in w; the penalty's is 1
    assert ratio == pytest.approx(0.01 / slope, rel=1e-5)


def test_the_relu_networks_penalty_weighs_next_to_nothing():
    part = paper("saturation").Saturation("saturated relu", Request(quick=True))
    row = part.pull()
    assert all(0 < v < 0.1 for each in row["pulls"].values() for v in each)
    assert "first weights" in paper("saturation").describe(row)


@pytest.fixture
def origins():
    return paper("saturation").origins
