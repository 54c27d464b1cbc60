"""What an audit asks of a few examples, it asks of every class, in whatever order they come."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn

import unmask
from unmask.claim.claim import claim_about
from unmask.cli.main import main
from unmask.cli.recipes import _without_labels
from unmask.cli.train import split_off
from unmask.data import load
from unmask.data.sample import mixed
from unmask.errors import UnusableInput
from unmask.testing import _data
from unmask.threat import Linf

CLAIM = claim_about(Linf(epsilon=0.1))

DIGITS = load("digits")
SORTED = DIGITS.y.sort(stable=True).indices
ORDERS = {
    "by class": SORTED,
    "backwards": SORTED.flip(0),
    "two halves": torch.cat([SORTED[::2], SORTED[1::2]]),
    "in runs of five": SORTED.view(-1, 5)[
        torch.randperm(100, generator=torch.Generator().manual_seed(1))
    ].flatten(),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_the_first_examples_are_of_all_classes(order):
    y = DIGITS.y[order]
    taken = mixed(y)
    assert taken.sort().values.equal(torch.arange(500))
    assert len(y[taken[:32]].unique()) >= 9


def test_what_comes_mixed_is_taken_as_it_comes():
    assert mixed(DIGITS.y).equal(torch.arange(500))
    assert mixed(torch.zeros(50, dtype=torch.int64)).equal(torch.arange(50))  # one class has no order


def test_labels_that_are_known_and_examples_of_a_gate_are_of_all_classes():
    by_class = DIGITS[SORTED]
    known, images = _without_labels(argparse.Namespace(unlabelled=None, labels=60), by_class)
    assert len(known.y.unique()) == 10
    assert len(images) == 440
    assert len(_data(by_class, 60, CLAIM).y.unique()) == 10
    assert _data(DIGITS, 60, CLAIM).index.equal(DIGITS.index[:60])


@pytest.mark.parametrize("seed", [0, 3])
def test_a_set_by_its_name_is_sampled_as_an_audit_samples_it(tmp_path, seed):
    np.savez(file := str(tmp_path / "by_class.npz"), x=DIGITS.x[SORTED].numpy(), y=DIGITS.y[SORTED].numpy())
    claim = claim_about(Linf(epsilon=0.1), seed=seed)
    found, expected = _data(file, 60, claim), load(file, examples=60, seed=seed)
    assert found.index.equal(expected.index)
    assert found.sample_seed == seed
    assert len(found.y.unique()) == 10
    aimed = claim_about(Linf(epsilon=0.1), goal="targeted", targets=3)
    assert 3 not in _data(file, 60, aimed).y


def test_what_training_holds_out_is_of_all_classes():
    for part in split_off(DIGITS[SORTED], 60):
        assert len(part.y.unique()) == 10
    rest, held = split_off(DIGITS, 60)
    assert rest.index.equal(DIGITS.index[:-60])
    assert held.index.equal(DIGITS.index[-60:])


def test_examples_of_a_training_run_are_of_all_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    both = {"x": DIGITS.x[SORTED].numpy(), "y": DIGITS.y[SORTED].numpy()}
    np.savez("by_class.npz", **{f"{part}_{k}": v for part in ("train", "test") for k, v in both.items()})
    seen = []

    def build(arguments, fields, data):
        seen.append(data)
        raise UnusableInput("seen enough")

    monkeypatch.setattr("unmask.cli.train.build", build)
    words = ["train", "fgsm", "--data", "by_class.npz", "--epsilon", "0.1", "--examples", "60"]
    for seed in ("0", "3"):
        assert main([*words, "--seed", seed, "--out", "out"]) == 2
    assert [len(data.y.unique()) for data in seen] == [10, 10]
    assert not seen[0].index.equal(seen[1].index)


def test_bound_without_a_number_measures_all_classes(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("by_class.npz", x=DIGITS.x[SORTED].numpy(), y=DIGITS.y[SORTED].numpy())
    Path("flat.py").write_text(
        "import torch\n\ndef network():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).eval()\n"
    )
    status = main(
        ["bound", "flat.py:network", "--data", "by_class.npz", "--norm", "linf", "--epsilon", "0.1", "--json"]
    )
    assert status == 0
    rows = json.loads(capsys.readouterr().out)["examples"]
    assert len({row["index"] // 50 for row in rows}) >= 5  # of ten classes of about fifty


class Late(nn.Module):
    """Stairs in front of an arg max for the later classes alone: the first, of sorted data, have an honest gradient."""

    def __init__(self):
        super().__init__()
        self.net = trained("plain_cnn")

    def forward(self, x):
        plain = self.net(x)
        return torch.where(plain.argmax(1, keepdim=True) >= 5, (plain * 2).round() * 40, plain)


def test_a_network_that_masks_for_later_classes_is_seen_in_sorted_data():
    rows = torch.cat([(DIGITS.y == c).nonzero()[:8, 0] for c in range(10)])
    x, y = DIGITS.x[rows], DIGITS.y[rows]
    report = unmask.audit(Late().eval(), x, y, norm="linf", epsilon=0.15, budget="quick")
    assert any("round" in (finding.code or "") for finding in report.masking)
    assert report.robust_accuracy < report.naive_robust_accuracy - 0.1
    assert report.table is not None
    assert report.table.index == list(range(80))
    assert report.table.label == y.tolist()
