"""Vectors, signals and volumes: what their shapes are taken for, and the box that 0 and 1 stand for."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from torch import nn

from unmask.claim.units import in_units
from unmask.classifier import Classifier
from unmask.data import check, load
from unmask.data.box import Box, box_of, own_range
from unmask.data.loading import with_option
from unmask.errors import UnusableInput

Y = np.arange(6) % 2


def test_own_range_is_one_for_each_feature_and_one_for_each_channel():
    vectors, _, notes, box = check(np.linspace(-3, 9, 24).reshape(6, 4), Y, name="v")
    assert vectors.amin(0).tolist() == [0.0] * 4
    assert vectors.amax(0).tolist() == [1.0] * 4
    assert box.low.shape == (4,)
    assert any("own range" in note for note in notes)
    signals, _, _, box = check(torch.randn(6, 3, 50), Y, name="s")
    assert box.low.shape == (3, 1)
    assert signals.amin((0, 2)).tolist() == [0.0] * 3
    volumes, _, _, box = check(10 * torch.randn(6, 2, 4, 5, 6), Y, name="vol")
    assert box.high.shape == (2, 1, 1, 1)
    assert volumes.amax() == 1


def test_what_lies_in_the_unit_box_stays_as_it_is():
    for shape in ((6, 4), (6, 3, 50), (6, 1, 4, 5, 6)):
        x = torch.rand(shape)
        same, _, notes, box = check(x, Y, name="x")
        assert torch.equal(same, x)
        assert box is None
        assert not notes


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "found"),
    [
        ((6, 28, 28), "float32", None, (6, 1, 28, 28)),
        ((6, 12, 100), "float32", None, (6, 12, 100)),
        ((6, 1, 128), "float32", None, (6, 1, 128)),
        ((6, 12, 100), "uint8", None, (6, 1, 12, 100)),
        ((6, 28, 28), "float32", "signals", (6, 28, 28)),
        ((6, 12, 100), "float32", "images", (6, 1, 12, 100)),
        ((6, 28, 28, 28), "uint8", None, (6, 1, 28, 28, 28)),
        ((6, 9, 10, 11), "float32", "volumes", (6, 1, 9, 10, 11)),
        ((6, 8, 8, 8, 3), "float32", None, (6, 3, 8, 8, 8)),
    ],
)
def test_shapes(shape, dtype, kind, found):
    x = (np.random.default_rng(0).random(shape) * (255 if dtype == "uint8" else 1)).astype(dtype)
    assert check(x, Y, name="x", kind=kind)[0].shape == found


def test_a_kind_that_does_not_fit_is_refused():
    with pytest.raises(UnusableInput, match="for signals; it must be"):
        check(torch.rand(6, 4), Y, name="x", kind="signals")
    with pytest.raises(UnusableInput, match="choose one of vectors, signals, images, volumes"):
        check(torch.rand(6, 4), Y, name="x", kind="text")


@pytest.mark.parametrize(
    ("stated", "line"),
    [
        ((0, 1), "lie outside the box"),
        ((np.zeros(3), np.ones(3)), "does not fit"),
        ((np.full(4, 99.0), np.zeros(4)), "above its high"),
        ("nowhere.npz", "cannot be read"),
        (5, "does not fit"),
    ],
)
def test_a_box_that_does_not_fit_is_one_line(stated, line):
    with pytest.raises(UnusableInput, match=line) as error:
        box_of(stated, torch.full((6, 4), 7.0), "x")
    assert "\n" not in str(error.value)


def test_images_take_a_box_that_is_stated():
    x = torch.rand(6, 3, 4, 4) * 2 - 1
    inside, _, _, box = check(x, Y, name="x", box=(-1, 1))
    assert torch.allclose(inside, (x + 1) / 2)
    assert box.low.shape == (3, 1, 1)
    with pytest.raises(UnusableInput, match="look normalised"):
        check(x, Y, name="x")


def test_the_network_behind_a_box_sees_natural_units():
    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10.0, 1e4, 1e-3])
    box, net = own_range(x), nn.Linear(4, 2).eval()
    for network in (net, Classifier(net, surrogate=net)):
        behind = in_units(network, box)
        inner = behind.network if isinstance(behind, Classifier) else behind
        assert torch.allclose(inner(box.unit(x)), net(x), rtol=1e-4, atol=1e-3)
        assert not inner.training
    assert in_units(net, None) is net
    flat = Box(torch.tensor([1.0]), torch.tensor([1.0]))
    assert flat.unit(torch.ones(2, 1)).tolist() == [[0.0], [0.0]]


def test_files_and_tables(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)) * 50
    names = np.array(["benign", "malign"])[np.arange(40) % 2]
    np.savez(tmp_path / "v.npz", x=x, y=np.arange(40) % 2)
    np.savez(tmp_path / "range.npz", low=x.min(0) - 1, high=x.max(0) + 1)
    with (tmp_path / "v.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["a", "b", "c", "class"], *([*r, n] for r, n in zip(x, names, strict=True))]
        )
    whole = load(tmp_path / "v.npz")
    table = load(tmp_path / "v.csv")
    assert torch.allclose(whole.x, table.x)
    assert table.class_names == ("benign", "malign")
    some = load(tmp_path / "v.npz", examples=10, seed=0)  # in units of the whole set's range
    assert torch.equal(some.x, whole.x[some.index])
    assert len(some) == 10
    wide = load(f"{tmp_path}/v.npz(box={tmp_path}/range.npz)")
    assert wide.x.min() > 0
    assert wide.x.max() < 1
    pair = load(with_option(f"{tmp_path}/v.npz", "box", "-500,500"))
    assert torch.allclose(pair.x, torch.from_numpy((x + 500) / 1000).float())
    (tmp_path / "bad.csv").write_text("a,b,class\n1,x,0\n")
    with pytest.raises(UnusableInput, match=r"row 1 of .* has 'x' in the column b"):
        load(tmp_path / "bad.csv")
