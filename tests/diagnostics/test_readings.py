"""What stands before a network is proposed by the exact option, and nothing is where none is needed."""

import sys

import pytest
import torch
import torch.nn.functional as F
from tests.fixtures.digits_networks import trained
from torch import nn

from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import load
from unmask.diagnostics import preflight
from unmask.diagnostics.readings import meant, options
from unmask.errors import ModelFailed, UnusableInput
from unmask.randomness import Streams
from unmask.sources.preprocessing import Preprocessing

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Takes(nn.Module):
    """The digit classifier behind what undoes its user's preprocessing."""

    def __init__(self, undo):
        super().__init__()
        self.base, self.undo = trained("plain_mlp"), undo

    def forward(self, x):
        return self.base(self.undo(x))


def grey():
    data = load("digits", examples=96)
    return data.x, data.y


def red():
    """Digits in the red channel, noise in the others."""
    x, y = grey()
    noise = torch.rand(len(x), 2, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.cat([x, noise], 1), y


def fixed(side):
    def undo(x):
        if x.shape[-1] != side:
            raise ValueError(f"{side} pixels only")
        return F.adaptive_avg_pool2d(x, 8)

    return undo


def drawn(count):
    return Streams.of(torch.Generator().manual_seed(0), count)


def fly(network, x, y, **options):
    return preflight(Classifier(network.eval()), x, y, generator=drawn(len(x)), **options)


def per_channel(values):
    return values.view(-1, 1, 1)


@pytest.mark.parametrize(
    ("data", "undo", "proposed"),
    [
        (grey, lambda x: x / 255, "--std 1/255:"),
        (grey, lambda x: x.flip(2).roll(3, 3), ""),  # upside down and aside: no usual reading helps
        (red, lambda x: x[:, 2:] / 255, "--std 1/255 --bgr:"),
        (red, lambda x: x[:, 2:], "--bgr:"),
        (grey, lambda x: x, ""),
    ],
)
def test_the_images_as_they_were_meant(data, undo, proposed):
    x, y = data()
    said = " ".join(fly(Takes(undo), x, y).warnings)
    if proposed:
        assert f"with {proposed}" in said
        assert "no better than chance" not in said
    else:
        assert "with --" not in said


def test_published_means_and_deviations():
    """A threshold on the scale of what was subtracted: as given, everything is on one side of it."""
    x, y = red()

    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = trained("plain_mlp")

        def forward(self, z):
            centred = z * per_channel(STD) + per_channel(MEAN)
            return self.base(torch.where(z.amin((1, 2, 3), keepdim=True) < -1, centred, 0 * z)[:, :1])

    said = " ".join(fly(Centred(), x, y).warnings)
    assert "with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225:" in said


@pytest.mark.parametrize(
    ("undo", "proposed"),
    [
        (lambda x: F.conv2d(x.permute(0, 3, 1, 2), torch.ones(1, 1, 1, 1)), "--channels-last:"),
        (fixed(28), "--resize 28 --crop 28:"),
        (
            lambda x: fixed(32)(F.conv2d(x.permute(0, 3, 1, 2), torch.ones(1, 1, 1, 1))),
            "--resize 32 --crop 32",
        ),
    ],
)
def test_a_network_that_fails_is_told_with_what_it_runs(undo, proposed):
    with pytest.raises(UnusableInput, match=f"it runs with {proposed}"):
        fly(Takes(undo), *grey())


@pytest.mark.parametrize(("given", "taken"), [(3, 1), (1, 3)])
def test_a_network_of_other_channels_is_told_how_many_it_takes(given, taken):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(taken, 4, 3), nn.Flatten(), nn.LazyLinear(10))
    net(torch.zeros(1, taken, 8, 8))
    x = torch.rand(8, given, 8, 8)
    with pytest.raises(
        UnusableInput, match=rf"runs with images of {taken} channels?: .*\(channels={taken}\)"
    ):
        fly(net, x, torch.arange(8))


def test_a_network_that_never_runs_fails_as_before():
    with pytest.raises(ModelFailed, match="never"):
        fly(Takes(lambda x: (_ for _ in ()).throw(ValueError("never"))), *grey())


def test_nothing_is_proposed_by_luck():
    """Of 26 readings of a network that guesses, some are better by luck; none is proposed, nor the modes changed."""
    x, y = grey()
    guesses = torch.rand(64, 10, generator=torch.Generator().manual_seed(3))

    class Guesses(nn.Module):
        def forward(self, x):
            return torch.sin(1e4 * x.flatten(1)) @ guesses

    network = Guesses().train()
    classifier = Classifier(network)
    accuracy = float((network(x).argmax(1) == y).double().mean())
    assert meant(classifier, x, y, accuracy, drawn(len(x))) == ""
    assert network.training


def test_options_as_one_types_them():
    steps = Preprocessing(resize=(224, 200), crop=8, mean=(0.5,), std=(0.25,), bgr=True)
    assert options(steps) == "--resize 224x200 --crop 8 --mean 0.5 --std 0.25 --bgr"


def test_from_the_command_line_the_option_that_is_named_mends_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "takes_bytes.py").write_text(
        "from tests.fixtures.digits_networks import trained\n"
        "from torch import nn\n"
        "class Bytes(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.base = trained('plain_mlp')\n"
        "    def forward(self, x):\n"
        "        return self.base(x / 255)\n"
        "def build():\n"
        "    return Bytes().eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    command = ["audit", "takes_bytes.py:build", "--norm", "linf", "--epsilon", "0.01", "--claim", "0.5"]
    command += ["--examples", "24", "--budget", "quick", "--quiet"]
    assert main([*command, "--out", "first"]) == 2
    assert "with --std 1/255" in capsys.readouterr().err
    assert main([*command, "--std", "1/255", "--out", "second"]) == 0
    assert main(["verify", "second", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["export", "second", "--script", "attack.py"]) == 2
    assert "wrap it" in capsys.readouterr().err
