"""`file.py:callable + jpeg(quality=75)`: our defences in front of somebody's network, by name."""

import pytest
import torch
from tests.audit.small_audit import write_target

from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import load
from unmask.defenses import JPEG, BitDepth
from unmask.errors import UnusableInput
from unmask.target.target import load_target


def test_the_first_defence_sees_the_image_first(tmp_path):
    spec = f"{write_target(tmp_path)}:linear"
    plain = load_target(spec).network
    target = load_target(f"{spec} + jpeg(quality=30) + bit_depth(bits=2)")
    assert isinstance(target.network, Classifier)
    assert target.spec.endswith("bits=2)")
    x = load("digits", examples=4).x
    squeezed = BitDepth(bits=2).transformation()(JPEG(quality=30).transformation()(x))
    assert torch.equal(target.network.network(x), plain(squeezed))
    assert target.checkpoint_hash


def test_what_cannot_be_is_one_line(tmp_path):
    file = write_target(tmp_path)
    with pytest.raises(UnusableInput, match=r"no defence 'jpg'; choose one of bit_depth"):
        load_target(f"{file}:linear + jpg")
    with pytest.raises(UnusableInput, match=r"returned a int|is a int"):
        load_target(f"{file}:number + jpeg")


def test_on_the_command_line(tmp_path, capsys):
    file, out = write_target(tmp_path), tmp_path / "out"
    words = ["audit", f"{file}:linear", "--norm", "linf", "--epsilon", "0.2", "--examples", "16", "--quiet"]
    words += ["--budget", "quick", "--out", str(out)]
    assert main([*words, "--defense", "bit_depth(bits=9)"]) == 2
    assert "bits=9; give 1 to 8" in capsys.readouterr().err
    assert main([*words, "--defense", "bit_depth(bits=3)", "--defense", "median"]) == 0
    capsys.readouterr()
    assert main(["verify", str(out)]) == 0
    assert main(["audit", "--resume", str(out), "--quiet"]) == 0
