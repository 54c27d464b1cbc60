"""`unmask train`, from the command line to weights that load."""

import json

import pytest
from safetensors.torch import load_file

from unmask.cli.main import main
from unmask.data import load
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


def test_unusable_options_are_one_line(tmp_path, capsys):
    assert main([*WORDS, "--epochs", "0", "--out", str(tmp_path)]) == 2
    assert "epochs=0" in capsys.readouterr().err
    assert main(["train", "magic", "--out", str(tmp_path)]) == 2
    assert "standard" in capsys.readouterr().err
