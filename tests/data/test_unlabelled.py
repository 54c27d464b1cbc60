"""Images without labels, from folders, arrays and labelled sets."""

import numpy as np
import pytest
import torch
from PIL import Image

from unmask.data import load
from unmask.data.unlabelled import load_unlabelled
from unmask.errors import UnusableInput


def test_a_folder_of_pictures_without_classes(tmp_path):
    pixels = np.arange(3 * 6 * 5, dtype=np.uint8).reshape(3, 6, 5)
    for n, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{n}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    x = load_unlabelled(str(tmp_path))
    assert torch.equal(x, torch.from_numpy(pixels)[:, None] / 255)


def test_an_array_of_images_alone(tmp_path):
    pixels = np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3)
    np.save(tmp_path / "wild.npy", pixels)
    x = load_unlabelled(str(tmp_path / "wild.npy"))
    assert torch.equal(x, torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)


def test_the_labels_of_a_set_are_left_alone(tmp_path):
    assert torch.equal(load_unlabelled("digits"), load("digits", split="train").x)
    np.savez(tmp_path / "set.npz", x=np.zeros((4, 1, 3, 3), np.float32), y=np.zeros(4, np.int64))
    assert load_unlabelled(str(tmp_path / "set.npz")).shape == (4, 1, 3, 3)
    parts = {
        f"{part}_{name}": array for part, n in (("train", 5), ("test", 2)) for name, array in _pair(n).items()
    }
    np.savez(tmp_path / "parts.npz", **parts)
    assert len(load_unlabelled(str(tmp_path / "parts.npz"))) == 5
    np.savez(
        tmp_path / "tests.npz", **{name: array for name, array in parts.items() if name.startswith("test")}
    )
    assert len(load_unlabelled(str(tmp_path / "tests.npz"))) == 2


def _pair(n):
    return {"x": np.zeros((n, 1, 3, 3), np.float32), "y": np.zeros(n, np.int64)}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.npy", None, "there is no file"),
        ("text.npy", b"no array", "cannot be read as an array"),
        ("folder/a.png", b"no picture", r"a\.png of .* cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(name, content, message, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnusableInput, match=message):
        load_unlabelled(str(path.parent if name.startswith("folder") else path))


def test_vectors_are_refused(tmp_path):
    np.save(tmp_path / "wild.npy", np.zeros((5, 7), np.float32))
    with pytest.raises(UnusableInput, match="holds no images"):
        load_unlabelled(str(tmp_path / "wild.npy"))
