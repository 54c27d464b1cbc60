"""`unmask claim new` and `unmask claim check`."""

import json
import tomllib

import pytest

from unmask.claim.claim import read_claim
from unmask.cli.main import main

NETWORK = """\
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

def plain():
    raise ValueError("no weights")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


NEW = ["claim", "new", "--target", "net.py:network", "--norm", "linf", "--epsilon", "8/255"]


def typing(monkeypatch, *answers):
    """A terminal at which somebody types these answers."""
    left = iter(answers)

    def read(prompt):
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", read)


def test_from_options_with_the_weights_hashed(folder, capsys):
    assert main([*NEW, "--claim", "45/100", "--attack", "a.py:A", "--attack", "b.py:B"]) == 0
    text = (folder / "claim.toml").read_text()
    assert 'epsilon = "8/255"' in text
    claim = read_claim(folder / "claim.toml")
    assert (claim.claim, claim.epsilon, claim.attack) == (0.45, 8 / 255, ["a.py:A", "b.py:B"])
    assert claim.checkpoint_hash is not None
    assert {"box", "goal", "knowledge", "adaptive"} <= claim.model_fields_set
    assert "passes" not in claim.model_fields_set
    assert "unmask claim check claim.toml" in capsys.readouterr().out


def test_the_hash_holds_until_the_weights_change(folder, capsys):
    main([*NEW, "--examples", "20"])
    (folder / "net.py").write_text(NETWORK.replace("manual_seed(0)", "manual_seed(1)"))
    assert main(["audit", "claim.toml"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("unmask: checkpoint_hash is ")
    assert err.count("\n") == 1


def test_by_asking(folder, monkeypatch, capsys):
    answers = [
        "",
        "net.py:network",
        "",
        "",
        "",
        "",
        "",
        "",
        "l7",
        "l2",
        "x",
        "1/2",
        "",
        "",
        "",
        "",
        "",
        "0.9",
        "0.5",
    ]
    typing(monkeypatch, *answers)
    assert main(["claim", "new", "--out", "asked.toml"]) == 0
    out = capsys.readouterr().out
    assert "this one is needed" in out
    assert "norm of the command line is 'l7'" in out
    assert "'x' is no number" in out
    content = tomllib.loads((folder / "asked.toml").read_text())
    assert content["target"] == "net.py:network"
    assert (content["norm"], content["epsilon"], content["passes"]) == ("l2", "1/2", 1)
    assert (content["clean_accuracy"], content["claim"]) == (0.9, 0.5)
    assert "split" not in content


def test_with_everything_needed_nothing_is_asked(monkeypatch):
    typing(monkeypatch)
    assert main(NEW) == 0


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["claim", "new"], "there is no target; give --target"),
        ([*NEW[:-1], "wide"], "epsilon of the command line: 'wide' is no number"),
        ([*NEW, "--passes", "many"], "passes of the command line is 'many'"),
        ([*NEW, "--claim", "45"], "claim of the command line is 45; give a share"),
        ([*NEW, "--target", "net.py:plain"], "net.py:plain raised ValueError: no weights"),
        ([*NEW, "--out", "absent/claim.toml"], "cannot be written (No such file or directory)"),
        ([*NEW, "--out", "net.py"], "net.py is already there"),
        (["claim", "check", "absent.toml"], "cannot be read as a claim"),
        (["claim"], "the following arguments are required: ACTION"),
    ],
)
def test_unusable_input_is_one_line_and_status_two(argv, told, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert told in err
    assert (out, err.count("\n")) == ("", 1)


def test_an_end_of_input_is_one_line(monkeypatch, capsys):
    typing(monkeypatch, "net.py:network")
    assert main(["claim", "new"]) == 2
    assert "the input ended before passes; give --passes" in capsys.readouterr().err


def test_check_lists_what_is_open_and_loads_nothing(folder, capsys):
    main([*NEW, "--no-hash"])
    (folder / "net.py").unlink()
    capsys.readouterr()
    assert main(["claim", "check", "claim.toml"]) == 1
    out = capsys.readouterr().out
    assert "open     clean accuracy" in out
    assert "unmask claim new computes" in out
    assert main(["claim", "check", "claim.toml", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["open"] == sum(item["status"] == "open" for item in found["items"]) == 4


def test_check_of_a_full_claim_is_zero(capsys):
    main([*NEW, "--data", "digits", "--claim", "0.4", "--clean-accuracy", "0.9", "--passes", "1"])
    assert main(["claim", "check", "claim.toml"]) == 0
    assert "0 of 27 items are open" in capsys.readouterr().out


def test_bounds_hold_the_author_to_the_same_promises(folder, capsys):
    main([*NEW, "--examples", "20"])
    (folder / "net.py").write_text(NETWORK.replace("manual_seed(0)", "manual_seed(1)"))
    capsys.readouterr()
    assert main(["bound", "claim.toml"]) == 2
    assert capsys.readouterr().err.startswith("unmask: checkpoint_hash is ")
