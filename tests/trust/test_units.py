"""A radius in the units of bytes, and examples that say less than their number."""

import numpy as np
import pytest
import torch
from tests.audit.small_audit import write_target

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import Data, load
from unmask.diagnostics import preflight
from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.threat import L1, L2, Linf

DIGITS = load("digits", examples=40)


def linear(x):
    return x.flatten(1)[:, 10:20] * 5


@pytest.mark.parametrize(
    ("threat", "meant"),
    [
        (Linf(epsilon=8), "8/255"),
        (Linf(epsilon=1), "1/255"),
        (Linf(epsilon=0.031 * 255), "7.905/255"),
        (L2(epsilon=128), "128/255"),
        (L2(epsilon=8), "8/255"),  # the diagonal of 64 pixels, exactly
        (L1(epsilon=12 * 255), "3060/255"),
        (Linf(epsilon=300, box=(0.0, 255.0)), "below 255"),
        (Linf(epsilon=2, box=(-1.0, 1.0)), "2/255 x 2"),
        (Linf(epsilon=1e5), "below 1"),
        (Linf(epsilon=float("inf")), "below 1"),
    ],
    ids=str,
)
def test_a_radius_that_spans_the_box_is_refused(threat, meant):
    with pytest.raises(UnusableInput, match=meant) as caught:
        threat.check_radius((64,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "threat",
    [Linf(epsilon=0.5), Linf(epsilon=8, box=(0.0, 255.0)), L2(epsilon=7.9), L1(epsilon=60), Linf(epsilon=0)],
)
def test_a_ball_within_the_box_is_not(threat):
    threat.check_radius((64,))


@pytest.mark.parametrize(
    "threat", [Linf(epsilon=8), L2(epsilon=64.0), L1(epsilon=2000), Linf(epsilon=4)], ids=str
)
def test_from_python(threat):
    with pytest.raises(UnusableInput, match=r"did you mean .*/255\?"):
        audit(linear, DIGITS, claim_about(threat))


@pytest.mark.parametrize("command", ["audit", "bound"])
def test_from_the_command_line_and_a_claim_file(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # each claims its folder before it looks at the radius
    target = f"{write_target(tmp_path)}:linear"
    options = ["--data", "digits", "--examples", "8"]
    assert main([command, target, *options, "--norm", "linf", "--epsilon", "8"]) == 2
    assert "did you mean 8/255?" in capsys.readouterr().err
    claim = tmp_path / "claim.toml"
    claim.write_text(
        f'target = "{target}"\ndata = "digits"\nexamples = 8\nnorm = "l2"\nepsilon = 32\nclaim = 0.5\n'
    )
    assert main([command, str(claim)]) == 2
    assert "did you mean 32/255?" in capsys.readouterr().err


def test_from_the_training_command(tmp_path, capsys):
    options = ["--data", "digits", "--norm", "linf", "--epsilon", "8", "--out", str(tmp_path / "out")]
    assert main(["train", "pgd", *options]) == 2
    assert "did you mean 8/255?" in capsys.readouterr().err


def warnings_of(x, y):
    streams = Streams.seeded(0, torch.arange(len(x)), "units")
    return preflight(Classifier(linear), x, y, generator=streams).warnings


def test_repeated_images_are_counted():
    x, y = DIGITS.x.clone(), DIGITS.y
    assert not any("repeat" in line for line in warnings_of(x, y))
    x[5:8] = x[0]
    x[20] = x[19]
    assert "4 of 40 images repeat another one" in " ".join(warnings_of(x, y))
    assert "20 of 40 images repeat" in " ".join(warnings_of(DIGITS.x[:20].repeat(2, 1, 1, 1), y))


def test_classes_without_an_image_are_named():
    assert not any("no image" in line for line in warnings_of(DIGITS.x, DIGITS.y))
    few = DIGITS.y < 4
    assert "6 of 10 classes have no image among the" in " ".join(warnings_of(DIGITS.x[few], DIGITS.y[few]))
    rest = DIGITS.y != 3
    assert "1 of 10 classes has no image among the" in " ".join(warnings_of(DIGITS.x[rest], DIGITS.y[rest]))
    assert "4, 5, 6, 7, 8, ..." in " ".join(warnings_of(DIGITS.x[few], DIGITS.y[few]))


def test_both_stand_in_the_report(tmp_path):
    some = DIGITS.y < 3
    x, y = DIGITS.x[some][[0, 0, 1, 2]], DIGITS.y[some][[0, 0, 1, 2]]
    np.savez(tmp_path / "few.npz", x=x.numpy(), y=y.numpy())
    data = load(tmp_path / "few.npz")
    assert isinstance(data, Data)
    said = " ".join(audit(linear, data, claim_about(Linf(epsilon=0.01), budget="quick")).warnings)
    assert "1 of 4 images repeats" in said
    assert "classes have no image" in said
