"""`unmask reproduce lecture-training --quick`: what a network on digits must show."""

import json
import re

import pytest

from unmask.cli.main import main
from unmask.cli.reproduce import paper


def rows(tmp_path, only):
    words = ["reproduce", "lecture-training", "--quick", "--out", str(tmp_path)]
    assert main([*words, *(["--only", only] if only else [])]) == 0
    return json.loads((tmp_path / "results.json").read_text())["rows"]


def test_the_toy_model_is_what_the_theory_says(tmp_path, capsys):
    found = rows(tmp_path, "toy model")
    assert len(found) == 4
    for row in found.values():
        published = float(re.match(r"[\d.]+", row["published"]).group()) / 100
        assert row["exact"] == pytest.approx(published, abs=0.003)
    assert (tmp_path / "toy_model.png").stat().st_size > 5000
    assert "99.9 %" in capsys.readouterr().out


def test_every_row_has_its_figure():
    module = paper("lecture-training")
    for published, measure in module.rows(module.Story(True, 0)).values():
        assert isinstance(published, str)
        assert callable(measure)
    assert module.plots({}) == {}
    assert module.describe({"ratio": 8.1}) == "8.1 x standard training"
    audit = {"robust": 0.5, "naive": 0.6, "interval": [0.4, 0.6], "masking": [], "images": 3}
    assert module.describe(audit) == "standard attack 60 %, all attacks 50 % [40, 60], masking: none"


@pytest.mark.slow
def test_what_the_lecture_says_holds_on_digits(tmp_path):
    found = rows(tmp_path, None)
    cost = {n.rpartition(" ")[2]: r["ratio"] for n, r in found.items() if n.startswith("cost")}
    robust = {n.rpartition(" ")[2]: r["robust"] for n, r in found.items() if n.startswith("accuracy")}
    assert 5 < cost["pgd"] < 15
    assert cost["fgsm"] < cost["free"] < cost["pgd"]
    assert robust["standard"] < 0.3
    assert cost["yopo-2-5"] < cost["yopo-3-5"] < cost["yopo-5-3"] < cost["pgd"]
    assert cost["yopo-2-5"] < cost["pgd"] / 3
    for name in ("pgd", "fgsm", "fgsm-edge", "free", "yopo-5-3", "trades"):
        assert robust[name] > 0.55, name
    audits = {n.rpartition(" ")[2]: r for n, r in found.items() if n.startswith("audit")}
    assert set(audits) == set(robust)
    for name, row in audits.items():
        assert row["masking"] == [], name
        assert row["robust"] <= row["naive"]
    more = {n: r["robust"] for n, r in found.items() if n.startswith("more data")}
    scratch, pretrained, labelled, all_of_them = more.values()
    assert pretrained > scratch
    assert all_of_them > labelled + 0.05
