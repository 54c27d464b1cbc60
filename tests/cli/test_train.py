"""`unmask train`, from the command line to weights that load."""

import io
import json

import pytest
from safetensors.torch import load_file

from unmask.cli.main import main
from unmask.data import load
from unmask.target.target import load_target
from unmask.zoo import CNN

WORDS = "train standard --data digits --arch cnn --batch-size 32 --learning-rate 0.1".split()


def test_writes_weights_that_do_what_the_record_says(tmp_path, capsys):
    assert main([*WORDS, "--epochs", "6", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    record = json.loads((tmp_path / "train.json").read_text())
    network = CNN(8)
    network.load_state_dict(load_file(tmp_path / "network.safetensors"))
    test = load("digits")
    right = int((network.eval()(test.x).argmax(1) == test.y).sum())
    assert record["test_accuracy"] == pytest.approx(right / len(test))
    assert right / len(test) > 0.9
    assert f"{100 * right / len(test):.2f} %" in printed.out
    assert "epoch 6 of 6" in printed.err
    assert len(record["epochs"]) == 6
    assert record["command"].startswith("unmask train standard --data digits --arch cnn --epochs 6")


def test_goes_on_behind_its_checkpoint(tmp_path, capsys):
    assert main([*WORDS, "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert main([*WORDS, "--epochs", "2", "--out", str(tmp_path)]) == 0
    assert "epoch 1 of 2" not in capsys.readouterr().err
    assert len(json.loads((tmp_path / "train.json").read_text())["epochs"]) == 2


def test_every_recipe_trains(tmp_path, capsys):
    common = "--examples 200 --batch-size 32 --epochs 2 --epsilon 0.1 --arch mlp".split()
    extra = {
        "pgd": "--steps 2 --step-size 0.5 --ramp 0.5 --validation 40 --patience 5 --tensorboard",
        "fgsm": "--norm l2 --guard-every 3",
        "free": "--replays 2",
        "yopo": "--full 2 --inner 2",
        "trades": "--beta 1 --steps 2",
        "pretraining": "--source digits --source-epochs 1 --steps 2",
        "selftraining": "--labels 60 --teacher-epochs 2 --beta 1 --steps 2",
    }
    for name, words in extra.items():
        out = tmp_path / name
        assert main(["train", name, *common, *words.split(), "--out", str(out)]) == 0
        printed = capsys.readouterr()
        record = json.loads((out / "train.json").read_text())
        assert 0 <= record["robust_test_accuracy"] <= record["test_accuracy"] <= 1
        assert "withstand a short PGD" in printed.out
        for word in words.split()[::2]:
            assert word in record["command"] or word == "--tensorboard"
        assert main(["train", name, *common, *words.split(), "--out", str(out)]) == 0  # all is there already
        assert json.loads((out / "train.json").read_text())["epochs"] == record["epochs"]
        capsys.readouterr()
    assert list((tmp_path / "pgd" / "tensorboard").glob("events*"))
    target = load_target(f"{tmp_path / 'trades' / 'network.py'}:network").network
    assert target(load("digits", examples=2).x).shape == (2, 10)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pgd", "--epsilon is missing"),
        ("pgd --epsilon 0.1 --beta 2", "--beta is 2.0, but pgd has none; it is for trades"),
        ("pretraining --epsilon 0.1", "--source is missing"),
        ("selftraining --epsilon 0.1 --labels 5000", "--labels is 5000"),
        ("pgd --epsilon 0.1 --edge-start", "--edge-start is True, but pgd has none; it is for fgsm"),
        ("standard --validation 5000", "--validation is 5000"),
        ("free --epsilon 0.1 --replays 0", "replays=0"),
    ],
)
def test_options_that_do_not_fit_are_one_line(words, message, tmp_path, capsys):
    assert main(["train", *words.split(), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_an_edge_start_takes_a_step_across_the_ball(tmp_path):
    words = "train fgsm --examples 200 --batch-size 32 --epochs 1 --epsilon 0.1 --arch mlp --seed 3".split()
    for name, more in {
        "edge": ["--edge-start"],
        "same": ["--edge-start", "--step-size", "2"],
        "not": [],
    }.items():
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    weights = {n: load_file(tmp_path / n / "network.safetensors") for n in ("edge", "same", "not")}
    assert all(t.equal(weights["same"][name]) for name, t in weights["edge"].items())
    assert not all(t.equal(weights["not"][name]) for name, t in weights["edge"].items())
    command = json.loads((tmp_path / "edge" / "train.json").read_text())["command"]
    assert " --edge-start --" in command


def test_unusable_options_are_one_line(tmp_path, capsys):
    assert main([*WORDS, "--epochs", "0", "--out", str(tmp_path)]) == 2
    assert "epochs=0" in capsys.readouterr().err
    assert main(["train", "magic", "--out", str(tmp_path)]) == 2
    assert "standard" in capsys.readouterr().err


def test_the_bar_shows_clean_and_robust_validation_accuracy():
    from rich.console import Console

    from unmask.cli.train import accuracies_of, progress_bar
    from unmask.training.base import Epoch

    console = Console(force_terminal=True, width=80, file=io.StringIO())
    with progress_bar(console, 4) as bar:
        words = accuracies_of(Epoch(0.1, 0.9, 3.0, 0.97, 0.615))
        bar.update(bar.task_ids[0], completed=2, description=", ".join(words))
        bar.refresh()
    shown = console.file.getvalue()
    assert "2/4" in shown
    assert "clean 97.00 %, robust 61.50 %" in shown
    assert accuracies_of(Epoch(0.1, 0.9, 3.0)) == ["training accuracy 90.00 %"]
