"""`unmask reproduce saturation --quick`: naive FGSM sees nothing in a saturated network, stable FGSM breaks it."""

import csv
import json

import pytest

from unmask.cli.main import main


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
