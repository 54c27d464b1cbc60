"""`unmask train RECIPE TARGET`: somebody's own network."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from unmask.cli.main import main
from unmask.data import load
from unmask.target.target import load_target

MINE = '''
import torch
from torch import nn

class Tied(nn.Module):
    """Two names for one weight, a frozen layer, dropout, batch statistics."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(64, 64)
        self.second = nn.Linear(64, 64)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(64)
        self.drop = nn.Dropout(0.1)
        self.frozen = nn.Linear(64, 64).requires_grad_(False)
        self.last = nn.Linear(64, 10)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x.flatten(1))))
        return self.last(torch.relu(self.frozen(self.drop(torch.relu(self.second(h))))))

def build():
    torch.manual_seed(1)
    return Tied()

def frozen():
    return build().requires_grad_(False)

def probabilities():
    return nn.Sequential(build(), nn.Softmax(1))

def pairs():
    class Pair(Tied):
        def forward(self, x):
            return super().forward(x), x
    return Pair()

def few_classes():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def wide():
    return nn.Sequential(nn.Flatten(), nn.Linear(65, 10))

def lazy():
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(10))

def auxiliary():
    class Auxiliary(Tied):
        def forward(self, x):
            logits = super().forward(x)
            return (logits, logits) if self.training else logits
    return Auxiliary()

def detached():
    class Detached(Tied):
        def forward(self, x):
            return super().forward(x).detach()
    return Detached()

class Volumes(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 4, (1, 3, 3), padding=(0, 1, 1))
        self.last = nn.Linear(256, 10)

    def forward(self, x):
        return self.last(torch.relu(self.conv(x[:, :, None])).flatten(1))

number = 3
'''


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "nets" / "mine.py"
    path.parent.mkdir()
    path.write_text(MINE)
    return path


WORDS = ["--data", "digits", "--batch-size", "64", "--learning-rate", "0.1", "--pad", "0"]


def test_a_network_of_ones_own_is_trained_on(mine, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    before = load_target(f"{mine}:build").network
    words = ["train", "pgd", f"{mine}:build", *WORDS, "--epsilon", "0.05", "--steps", "2", "--epochs", "3"]
    assert main([*words, "--out", str(out)]) == 0
    assert "withstand a short PGD" in capsys.readouterr().out
    weights = load_file(out / "network.safetensors")
    assert torch.equal(weights["frozen.weight"], before.frozen.weight)
    assert not torch.equal(weights["last.weight"], before.last.weight)
    assert torch.equal(weights["first.weight"], weights["second.weight"])
    monkeypatch.chdir(tmp_path / "nets")  # what was written finds its way from anywhere
    after = load_target(f"{out / 'network.py'}:network").network
    test = load("digits")
    assert torch.equal(after.last.weight, weights["last.weight"])
    assert float((after(test.x).argmax(1) == test.y).float().mean()) > 0.8


def test_any_place_can_be_written_down(mine, tmp_path):
    place = tmp_path / 'it\'s a "{set}" of nets'
    mine.parent.rename(place)
    assert (
        main(
            [
                "train",
                "standard",
                f"{place}/mine.py:build",
                *WORDS,
                "--epochs",
                "1",
                "--out",
                str(tmp_path / "o"),
            ]
        )
        == 0
    )
    assert load_target(f"{tmp_path / 'o' / 'network.py'}:network").network(load("digits").x[:2]).shape == (
        2,
        10,
    )


def test_lazy_layers_learn_their_shape_from_the_data(mine, tmp_path, capsys):
    assert (
        main(["train", "standard", f"{mine}:lazy", *WORDS, "--epochs", "1", "--out", str(tmp_path / "o")])
        == 0
    )
    assert load_target(f"{tmp_path / 'o' / 'network.py'}:network").network(load("digits").x[:2]).shape == (
        2,
        10,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("frozen", "nothing to train"),
        ("probabilities", "returns probabilities"),
        ("pairs", "returns tuple for two images"),
        ("few_classes", "returns 3 logits, and the labels name 10 classes"),
        ("wide", "fails on images of shape [1, 8, 8]"),
        ("auxiliary", "in training mode returns tuple for two images"),
        ("detached", "returns logits without a gradient"),
        ("number", "is a int; give a callable"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_cannot_be_trained_is_one_line(name, message, mine, tmp_path, capsys):
    assert main(["train", "standard", f"{mine}:{name}", *WORDS, "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_weights_of_five_dimensions_are_trained(mine, tmp_path, capsys):
    words = ["train", "standard", f"{mine}:Volumes", *WORDS, "--epochs", "1", "--out", str(tmp_path / "o")]
    assert main(words) == 0
    assert load_file(tmp_path / "o" / "network.safetensors")["conv.weight"].shape == (4, 1, 1, 3, 3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("standard net.onnx", "net.onnx cannot be trained as it stands"),
        ("standard mine.py:build --arch cnn", "--arch cnn and mine.py:build are two networks"),
        ("selftraining --epsilon 0.1", "give --unlabelled DATA, or --labels N"),
        ("selftraining --epsilon 0.1 --labels 50 --unlabelled digits", "and not both"),
        ("selftraining --epsilon 0.1 --labels 50 --pseudo-rate 2", "the pseudo rate is 2"),
        ("pgd --epsilon 0.1 --pseudo-rate 0.5", "--pseudo-rate is 0.5, but pgd has none"),
    ],
)
def test_options_that_do_not_fit_are_one_line(words, message, tmp_path, capsys):
    assert main(["train", *words.split(), "--batch-size", "32", "--out", str(tmp_path / "o")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("turns", [[], ["--pseudo-rate", "0.3"]])
def test_images_without_labels_of_ones_own(turns, tmp_path, capsys):
    common = (
        "train selftraining --examples 64 --batch-size 32 --epochs 1 --teacher-epochs 1 --steps 1 --arch mlp"
    )
    words = [*common.split(), "--epsilon", "0.1", "--unlabelled", "digits", *turns]
    assert main([*words, "--out", str(tmp_path / "o")]) == 0
    assert " ".join(turns) in (tmp_path / "o" / "train.json").read_text()


def test_a_file_without_splits_is_refused_with_the_way_out_and_does_as_a_source(tmp_path, capsys):
    some = load("digits", examples=64)
    np.savez(tmp_path / "set.npz", x=some.x.numpy(), y=some.y.numpy())
    file, small = str(tmp_path / "set.npz"), ["--batch-size", "32", "--epochs", "1", "--arch", "mlp"]
    assert main(["train", "standard", "--data", file, *small, "--out", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err
    assert "put train_x, train_y, test_x and test_y into one .npz" in said
    assert "--split" not in said
    np.savez(tmp_path / "half.npz", train_x=some.x.numpy(), train_y=some.y.numpy())
    half = str(tmp_path / "half.npz")
    assert main(["train", "standard", "--data", half, *small, "--out", str(tmp_path / "c")]) == 2
    assert "put train_x, train_y, test_x and test_y" in capsys.readouterr().err
    assert not (tmp_path / "c" / "network.safetensors").exists()
    words = [
        "train",
        "pretraining",
        "--source",
        file,
        "--source-epochs",
        "1",
        "--steps",
        "1",
        "--epsilon",
        "0.1",
    ]
    assert main([*words, "--examples", "64", *small, "--out", str(tmp_path / "b")]) == 0
