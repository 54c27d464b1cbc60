"""`unmask reproduce sap --quick`: that every row runs, resumes, and says what it must on a small network."""

import json
import sys

import pytest
import torch

from unmask.cli.main import main
from unmask.reproducing.papers import paper
from unmask.reproducing.request import Request


def test_one_row_then_the_same_row_again_costs_nothing(tmp_path, capsys):
    words = ["reproduce", "sap", "--quick", "--only", "clean, vanilla", "--out", str(tmp_path)]
    assert main(words) == 0
    first = capsys.readouterr()
    assert "clean, vanilla network" in first.err
    assert first.out.startswith("|  | published, of other networks and data | ours, 95 % interval |")
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


def test_an_unknown_row_is_one_line(tmp_path, capsys):
    assert main(["reproduce", "clever", "--quick", "--only", "nonsense", "--out", str(tmp_path)]) == 2
    assert "no row of clever contains 'nonsense'; there are" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def sap():
    return paper("sap")


def test_saps_long_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch, sap):
    module = sys.modules["long_run"]
    monkeypatch.setattr(module, "SAVE_EVERY", 5)
    story = sap.Story(Request(quick=True))

    def run(to, folder, again=True, seed=0):
        story.seed = seed
        story.folder = folder
        settings = module.ours(story.scale.epsilon)
        found = story.run(settings, 12, "long_run")
        found.advance(10)
        found.leave(torch.arange(12) < 4)
        if again and folder:
            found = story.run(settings, 12, "long_run")
            assert found.done == 10
            assert len(found.left) == 8
        found.advance(to)
        return found

    whole, resumed = run(20, None), run(20, tmp_path)
    assert torch.equal(whole.x_adv, resumed.x_adv)
    assert torch.equal(whole.x_best, resumed.x_best)
    assert not torch.equal(whole.x_adv[4:], run(15, None).x_adv[4:])
    story.seed, story.folder = 1, tmp_path  # another seed's run is not taken over
    (tmp_path / "long_run-0.safetensors").rename(tmp_path / "long_run-1.safetensors")
    assert story.run(module.ours(0.2), 12, "long_run").done == 0


def test_the_published_settings_take_the_margins_sign_steps(sap):
    module = sys.modules["long_run"]
    settings = module.published("untargeted")
    assert (settings.step_size, settings.random_start) == (0.1 / 255, False)
    story = sap.Story(Request(quick=True, examples=4))
    run = story.run(settings, 4, None)
    x = story.x[:4].clone().requires_grad_()
    two = run.classifier(x, generator=story.streams(settings.tag, 4)).logits
    other = two.scatter(1, story.y[:4, None], -torch.inf).amax(1)
    (grad,) = torch.autograd.grad((other - two.gather(1, story.y[:4, None])[:, 0]).sum(), x)
    run.advance(1)
    torch.testing.assert_close(run.x_adv, (x.detach() + grad.sign() * 0.1 / 255).clamp(0, 1))


def test_points_are_judged_on_both_samplers_and_both_means(sap):
    story = sap.Story(Request(quick=True, examples=8, steps=3))
    row = story.published("targeted", 3)
    assert set(row["also"]) == {"last iterate", "Bernoulli sampler", "mean of probabilities"}
    assert row["images"] == 8
    assert "no BPDA, published settings, targeted, 3 steps" in sap.rows(story)


def test_saps_attacks_on_many_images_go_on_after_the_last_fifty(tmp_path, sap):
    module = sap
    story = module.Story(Request(quick=True))
    told = []

    def attack(classifier):
        story.watch(tmp_path, "a row", lambda done, total: told.append((done, total)))
        return story.attack(classifier, classifier, module.Exact(), steps=2, count=100, targeted=False)

    first = attack(story.vanilla)
    assert told == [(50, 100), (100, 100)]
    assert attack(None) == first  # nothing is run again
    story.watch(tmp_path, "another row", print)
    assert story._unfinished() == []


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
