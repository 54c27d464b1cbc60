"""`unmask reproduce saturation --quick`: naive FGSM sees nothing in a saturated network, stable FGSM breaks it."""

import json

from unmask.cli.main import main


def test_the_story_in_small(tmp_path):
    assert main(["reproduce", "saturation", "--quick", "--only", "relu", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    value = {name.partition(": ")[2]: row.get("value") for name, row in rows.items()}
    assert value["clean"] > 0.8
    assert value["naive FGSM"] > 0.7
    assert value["stable FGSM"] < 0.12
    assert value["images whose whole gradient is zero"] > 0.65
    assert (tmp_path / "figure2_relu.png").exists()
