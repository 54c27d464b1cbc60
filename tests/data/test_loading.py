import os
import pickle

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_digits

from unmask.data import load
from unmask.errors import UnusableInput

GOOD_X = np.random.default_rng(0).random((6, 1, 4, 4), dtype=np.float32)
GOOD_Y = np.arange(6, dtype=np.int64)


def message(call, *arguments, **options) -> str:
    with pytest.raises(UnusableInput) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# digits


def test_digits_follow_the_stated_split():
    test, train = load("digits"), load("digits", split="train")
    assert test.x.shape == (500, 1, 8, 8)
    assert train.x.shape == (1297, 1, 8, 8)
    assert test.x.dtype == torch.float32
    assert test.y.dtype == test.index.dtype == torch.int64
    assert (test.x.min(), test.x.max()) == (0, 1)
    order = np.random.default_rng(0).permutation(1797)
    bunch = load_digits()
    assert np.array_equal(test.x[:, 0].numpy(), (bunch.images[order[1297:]] / 16).astype(np.float32))
    assert np.array_equal(train.y.numpy(), bunch.target[order[:1297]])
    assert test.index.tolist() == list(range(500))


def test_the_first_examples_in_order():
    whole, part = load("digits"), load("digits", examples=7)
    assert len(part) == 7
    assert torch.equal(part.x, whole.x[:7])
    assert part.index.tolist() == list(range(7))


@pytest.mark.parametrize(
    ("examples", "told"), [(0, "--examples is 0"), (-3, "--examples is -3"), (501, "holds 500")]
)
def test_a_bad_number_of_examples(examples, told):
    assert told in message(load, "digits", examples=examples)


def test_a_bad_split_of_digits():
    assert message(load, "digits", split="valid") == "--split is 'valid'; digits has train and test"


# files


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_a_file(tmp_path, kind):
    path = tmp_path / f"mine.{kind}"
    if kind == "npz":
        np.savez(path, x=GOOD_X, y=GOOD_Y.astype(np.uint8), more=np.ones(3))
    else:
        save_file({"x": torch.from_numpy(GOOD_X), "y": torch.from_numpy(GOOD_Y)}, path)
    data = load(path, examples=5)
    assert np.array_equal(data.x.numpy(), GOOD_X[:5])
    assert data.y.tolist() == [0, 1, 2, 3, 4]
    assert data.y.dtype == torch.int64
    assert (data.name, data.split) == (str(path), "")


def test_other_byte_orders_and_memory_layouts(tmp_path):
    np.savez(tmp_path / "big.npz", x=np.asfortranarray(GOOD_X.astype(">f4")), y=GOOD_Y.astype(">i8"))
    data = load(tmp_path / "big.npz")
    assert np.array_equal(data.x.numpy(), GOOD_X)
    assert data.y.tolist() == GOOD_Y.tolist()


NORMALISED = (GOOD_X - 0.5) / 0.25
WITH_NAN = GOOD_X.copy()
WITH_NAN[2:4, 0, 1, 1] = np.nan, np.inf


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (NORMALISED, GOOD_Y, ["pixels", f"{NORMALISED.min():.4g}", "look normalised", "inside the network"]),
        (GOOD_X * 255, GOOD_Y, ["look like bytes", "divide x by 255", f"{(GOOD_X * 255).max():.4g}"]),
        (GOOD_X * 1.01, GOOD_Y, ["outside [0, 1]", "clip or rescale"]),
        ((GOOD_X * 255).astype(np.int64), GOOD_Y, ["int64", "x.astype('float32') / 255"]),
        ((GOOD_X * 65535).astype(np.uint16), GOOD_Y, ["uint16", " / 6", "the value that stands for white"]),
        ((GOOD_X * 16).astype(np.int32), GOOD_Y, ["int32", " / 1", "the value that stands for white"]),
        (WITH_NAN, GOOD_Y, ["NaN or infinite pixels in 2 of 6 images"]),
        (GOOD_X[:0], GOOD_Y[:0], ["is empty", "[0, 1, 4, 4]"]),
        (GOOD_X.reshape(6, 1, 1, 2, 2, 4), GOOD_Y, ["shape [6, 1, 1, 2, 2, 4]", "[examples, features]"]),
        (GOOD_X, GOOD_Y[:5], ["6 images but 5 labels"]),
        (GOOD_X, np.eye(6, dtype=np.int64), ["shape [6, 6]", "argmax(1) if it is one-hot"]),
        (GOOD_X, GOOD_Y[:, None, None], ["shape [6, 1, 1]", "y.reshape(-1)"]),
        (GOOD_X, GOOD_Y.astype(np.float32), ["float32", "labels must be integers"]),
        (GOOD_X, np.array([*"cabbac"]), ["holds texts, such as 'c'", "numpy.unique(y, return_inverse=True)[1]"]),
        (GOOD_X, GOOD_Y.astype("S"), ["holds texts"]),
        (GOOD_X, GOOD_Y > 2, ["bool", "labels must be integers"]),
        (GOOD_X, GOOD_Y - 1, ["run from -1 to 4", "must run from 0"]),
        (np.array([["a"] * 6]), GOOD_Y, ["not an array of numbers"]),
    ],
)  # fmt: skip
def test_bad_arrays_get_one_line(tmp_path, x, y, told):
    np.savez(tmp_path / "bad.npz", x=x, y=y)
    text = message(load, tmp_path / "bad.npz")
    assert str(tmp_path / "bad.npz") in text
    for part in told:
        assert part in text


class Bomb:
    def __reduce__(self):
        return os.mkdir, (self.where,)

    def __init__(self, where):
        self.where = where


@pytest.mark.parametrize("kind", ["pt", "pth", "pkl", "npy", "npz"])
def test_a_pickle_is_refused_and_its_code_does_not_run(tmp_path, kind):
    path, trap = tmp_path / f"trap.{kind}", tmp_path / "ran"
    if kind == "npz":
        np.savez(path, x=np.array([Bomb(str(trap))], dtype=object), y=GOOD_Y)
    else:
        path.write_bytes(pickle.dumps({"x": Bomb(str(trap)), "y": GOOD_Y}))
    text = message(load, path)
    assert "runs the code inside" in text or "runs the code inside it" in text or "reading them runs" in text
    assert "--allow-pickle" in text
    assert not trap.exists()


@pytest.mark.parametrize("kind", ["pt", "pkl", "npy"])
def test_a_pickle_is_read_when_the_user_says_so(tmp_path, kind):
    path = tmp_path / f"mine.{kind}"
    if kind == "pt":
        torch.save((torch.from_numpy(GOOD_X), torch.from_numpy(GOOD_Y)), path)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps({"x": GOOD_X, "y": GOOD_Y}))
    else:
        np.save(path, np.array({"x": GOOD_X, "y": GOOD_Y}, dtype=object))
    assert np.array_equal(load(path, allow_pickle=True).x.numpy(), GOOD_X)


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
@pytest.mark.parametrize("content", [b"", b"nonsense" * 40, "cut"])
def test_an_unreadable_file(tmp_path, kind, content):
    path = tmp_path / f"broken.{kind}"
    if content == "cut":
        test_a_file(tmp_path, kind)
        content = (tmp_path / f"mine.{kind}").read_bytes()[:-60]
    path.write_bytes(content)
    assert f"{path} cannot be read as .{kind}" in message(load, path)


def test_missing_files_and_keys(tmp_path):
    assert "there is no file" in message(load, tmp_path / "absent.npz")
    assert "there is no file or folder" in message(load, "./absent_folder")
    (tmp_path / "notes.txt").write_text("hello")
    assert "unknown kind" in message(load, tmp_path / "notes.txt")
    np.savez(tmp_path / "other.npz", first=GOOD_X, second=GOOD_Y)
    assert "holds first, second; it must hold x" in message(load, tmp_path / "other.npz")
    np.savez(tmp_path / "plain.npz", x=GOOD_X, y=GOOD_Y)
    assert "has no splits" in message(load, tmp_path / "plain.npz", split="test")


# Hugging Face


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield tmp_path
    datasets.enable_progress_bars()


def write_parquet(folder, images, labels, features, split="test"):
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_dict({"picture": images, **labels}, features=datasets.Features(features))
    table.to_parquet(folder / f"{split}-00000-of-00001.parquet")


def pictures(mode, count=4, size=5):
    rng = np.random.default_rng(0)
    shape = (count, size, size) if mode == "L" else (count, size, size, 3)
    return [Image.fromarray(pixels) for pixels in rng.integers(0, 256, shape, dtype=np.uint8)]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_folder_of_the_hubs_schema(cache, mode):
    images = pictures(mode)
    features = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b", "c"])}
    write_parquet(cache / "set", images, {"kind": [2, 0, 1, 2]}, features)
    data = load(cache / "set", examples=3)
    expected = np.stack([np.asarray(i) for i in images[:3]]).astype(np.float32) / 255
    expected = expected[:, None] if mode == "L" else expected.transpose(0, 3, 1, 2)
    assert np.array_equal(data.x.numpy(), expected)
    assert data.y.tolist() == [2, 0, 1]
    assert data.split == "test"


def test_a_folder_without_a_test_split_and_with_two_labels(cache):
    names = datasets.ClassLabel(names=["a", "b"])
    fine = datasets.ClassLabel(names=list("abcd"))
    features = {"picture": datasets.Image(), "coarse": names, "fine": fine}
    write_parquet(
        cache / "set", pictures("L"), {"coarse": [0, 1, 0, 1], "fine": [3, 2, 1, 0]}, features, "train"
    )
    data = load(cache / "set")
    assert data.split == "train"
    assert data.y.tolist() == [3, 2, 1, 0]
    text = message(load, cache / "set", split="holdout")
    assert "holdout" in text
    assert "train" in text


def test_bad_folders(cache):
    features = {"picture": datasets.Image(), "text": datasets.Value("string")}
    write_parquet(cache / "a", pictures("L"), {"text": list("abcd")}, features)
    assert "picture (Image), text (Value); it needs one of type Image and one of type ClassLabel" in message(
        load, cache / "a"
    )
    features = {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
    write_parquet(cache / "b", pictures("L", 2) + pictures("L", 2, 7), {"label": [0, 1, 0, 1]}, features)
    assert "differ in shape" in message(load, cache / "b")
    write_parquet(cache / "c", pictures("L"), {"label": [0, 1, -1, 1]}, features)
    assert "run from -1 to 1; they must run from 0 to 1" in message(load, cache / "c")
    assert "holds 4" in message(load, cache / "c", examples=5)
    (cache / "d").mkdir()
    assert "cannot be loaded" in message(load, cache / "d")


def test_names_go_to_the_hub_unless_the_folder_is_there(monkeypatch, tmp_path):
    asked = []

    def load_dataset(place, name=None, split=None):
        asked.append(place)
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.delenv("UNMASK_DATA", raising=False)
    assert "ConnectionError: no network" in message(load, "mnist")
    message(load, "cifar10")
    message(load, "someone/some-images")
    monkeypatch.setenv("UNMASK_DATA", str(tmp_path))
    message(load, "mnist")
    (tmp_path / "mnist").mkdir()
    message(load, "mnist")
    assert asked == [
        "ylecun/mnist",
        "uoft-cs/cifar10",
        "someone/some-images",
        "ylecun/mnist",
        str(tmp_path / "mnist"),
    ]


@pytest.mark.data
@pytest.mark.skipif("UNMASK_DATA" not in os.environ, reason="UNMASK_DATA names no data folder")
@pytest.mark.parametrize(("name", "shape"), [("mnist", (1, 28, 28)), ("cifar10", (3, 32, 32))])
def test_the_real_sets(cache, name, shape):
    data = load(name, examples=4)
    assert data.x.shape == (4, *shape)
    assert data.split == "test"
    assert data.x.max() > 0.9
    if name == "mnist":
        assert data.y.tolist() == [7, 2, 1, 0]
