"""The kinds of data that people have: every one of them loads as the pictures that were saved."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from unmask.data import load
from unmask.errors import UnusableInput

X = np.random.default_rng(0).random((6, 3, 8, 8), dtype=np.float32)
Y = np.arange(6) % 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def message(*arguments, **options):
    with pytest.raises(UnusableInput) as caught:
        load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def picture(n, size=(8, 6), mode="RGB"):
    return Image.effect_noise(size, 30 + n).convert(mode)


def pixels(image):
    array = np.asarray(image.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


@pytest.mark.parametrize(
    ("saved", "note"),
    [
        ((X * 255).astype(np.uint8), "divided by 255"),
        (X.astype(np.float64), "float64"),
        (X.astype(np.float16), "float16"),
        (X.transpose(0, 2, 3, 1), "moved to the front"),
        ((X * 255).astype(np.uint8).transpose(0, 2, 3, 1), "moved to the front"),
    ],
)
def test_arrays_as_people_save_them(tmp_path, saved, note):
    np.savez(tmp_path / "a.npz", x=saved, y=Y)
    data = load(tmp_path / "a.npz")
    assert data.x.dtype == torch.float32
    assert torch.allclose(data.x, torch.from_numpy(X), atol=1 / 255)
    assert any(note in said for said in data.notes)


def test_grey_images_without_a_channel(tmp_path):
    np.savez(tmp_path / "a.npz", x=X[:, 0], y=Y)
    assert torch.equal(load(tmp_path / "a.npz").x, torch.from_numpy(X[:, :1]))


@pytest.mark.parametrize(
    ("names", "split", "said"),
    [
        (("test_images", "test_labels"), None, "test"),
        (("train_images", "train_labels"), "train", "train"),
        (("x_test", "y_test"), None, "test"),
        (("images", "labels"), None, ""),
        (("X", "Y"), None, ""),
        (("signals", "labels"), None, ""),
    ],
)
def test_archives_under_other_names(tmp_path, names, split, said):
    arrays = dict(zip(names, ((X * 255).astype(np.uint8).transpose(0, 2, 3, 1), Y[:, None]), strict=True))
    np.savez(tmp_path / "medical.npz", **arrays)
    data = load(tmp_path / "medical.npz", split=split)
    assert (data.split, data.y.tolist()) == (said, Y.tolist())
    assert "of 'holdout'" in message(tmp_path / "medical.npz", split="holdout") or not said


@pytest.mark.parametrize(("x", "y"), [("images", "labels"), ("test_x", "test_y"), ("data", "targets")])
def test_two_files_of_numpy(tmp_path, x, y):
    np.save(tmp_path / f"{x}.npy", X)
    assert y in message(tmp_path / f"{x}.npy")
    np.save(tmp_path / f"{y}.npy", Y)
    assert torch.equal(load(tmp_path / f"{x}.npy").x, torch.from_numpy(X))


def test_a_folder_of_pictures_by_class(tmp_path):
    for n, name in enumerate(["cat", "dog", "cat", "owl"]):
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        picture(n).save(tmp_path / "set" / name / f"{n}.png")
    data = load(tmp_path / "set")
    assert data.class_names == ("cat", "dog", "owl")
    assert sorted(data.y.tolist()) == [0, 0, 1, 2]
    picture(9, (20, 9), "L").save(tmp_path / "set" / "owl" / "9.png")
    assert "(resize=64, crop=64)" in message(tmp_path / "set")
    assert load(f"{tmp_path / 'set'}(resize=6, crop=6)").x.shape == (5, 3, 6, 6)
    assert "brackets" in message(f"{tmp_path / 'set'}(size=6)")


def test_what_save_to_disk_wrote(tmp_path):
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    images = [picture(n) for n in range(3)]
    saved = datasets.Dataset.from_dict({"image": images, "label": [1, 0, 1]}, features=features)
    saved.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": saved, "test": saved.select([2])}).save_to_disk(tmp_path / "splits")
    assert torch.equal(load(tmp_path / "one").x[1], pixels(images[1]))
    assert torch.equal(load(tmp_path / "splits").x[0], pixels(images[2]))
    assert load(tmp_path / "splits", split="train").y.tolist() == [1, 0, 1]
    assert "train, test" in message(tmp_path / "splits", split="val")


@pytest.mark.parametrize("declared", [True, False])
def test_a_lone_parquet(tmp_path, declared):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    images = [picture(n) for n in range(3)]
    file = tmp_path / "rows.parquet"
    if declared:
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        )
        datasets.Dataset.from_dict({"image": images, "label": [1, 0, 1]}, features=features).to_parquet(file)
    else:
        encoded = []
        for image in images:
            stream = io.BytesIO()
            image.save(stream, "PNG")
            encoded.append({"bytes": stream.getvalue(), "path": None})
        pq.write_table(pa.table({"image": encoded, "label": [1, 0, 1]}), file)
    data = load(file, examples=2, seed=0)
    assert len(data) == 2
    assert all(torch.equal(x, pixels(images[n])) for x, n in zip(data.x, data.index.tolist(), strict=True))


def test_a_table_of_files(tmp_path):
    (tmp_path / "p").mkdir()
    rows = ["path,label"]
    for n, name in enumerate(["owl", "cat", "owl"]):
        picture(n).save(tmp_path / "p" / f"{n}.png")
        rows.append(f"p/{n}.png,{name}")
    (tmp_path / "set.csv").write_text("\n".join(rows))
    data = load(tmp_path / "set.csv")
    assert (data.y.tolist(), data.class_names) == ([1, 0, 1], ("cat", "owl"))
    assert torch.equal(data.x[2], pixels(picture_of(tmp_path, 2)))
    (tmp_path / "p" / "1.png").write_bytes(b"nothing")
    assert "row 2" in message(tmp_path / "set.csv")
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    assert "columns a, b" in message(tmp_path / "bare.csv")


def picture_of(folder, n):
    with Image.open(folder / "p" / f"{n}.png") as image:
        return image.copy()


def test_a_broken_picture_is_one_line(tmp_path):
    for n, name in enumerate(["cat", "dog"]):
        (tmp_path / "set" / name).mkdir(parents=True)
        picture(n).save(tmp_path / "set" / name / f"{n}.png")
    (tmp_path / "set" / "dog" / "2.png").write_bytes(b"no picture")
    assert "cannot be read" in message(tmp_path / "set")


def test_a_folder_is_looked_through_once(tmp_path, monkeypatch):
    """It has neither a test nor a validation split, and each question about one would look at every file again."""
    asked = []
    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: asked.append(a) or load_dataset(*a, **k))
    for n in range(6):
        (tmp_path / "photos" / f"class {n % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 40 * n).save(tmp_path / "photos" / f"class {n % 2}" / f"{n}.png")
    assert load(tmp_path / "photos", examples=4, seed=0).y.tolist() == [0, 0, 1, 1]
    assert len(asked) == 1
    with pytest.raises(UnusableInput, match="test"):
        load(tmp_path / "photos", split="test")


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_become_grey_or_coloured(tmp_path, channels):
    for n, mode in enumerate(("L", "RGB", "RGBA", "LA", "P", "1", "CMYK")):
        (tmp_path / "photos" / f"class {n % 2}").mkdir(parents=True, exist_ok=True)
        file = tmp_path / "photos" / f"class {n % 2}" / f"{n}.{'tif' if mode == 'CMYK' else 'png'}"
        picture(n, (8, 8), "RGB").convert(mode).save(file)
    assert load(f"{tmp_path / 'photos'}(channels={channels})").x.shape == (7, channels, 8, 8)
    assert "1 for grey or 3" in message(f"{tmp_path / 'photos'}(channels=2)")


def test_sizes_of_what_holds_no_pictures_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    (tmp_path / "a.csv").write_text("a,b,label\n0,1,0\n1,0,1\n")
    for name in ("digits(resize=4)", f"{tmp_path / 'a.npz'}(crop=4)", f"{tmp_path / 'a.csv'}(channels=1)"):
        assert "holds arrays" in message(name)


def test_more_than_the_memory_holds_is_one_line(tmp_path, monkeypatch):
    """ImageNet's fifty thousand would be read for an hour and then killed by the system; a sample of them is read."""
    for n in range(4):
        file = tmp_path / "set" / "test" / "ab"[n % 2] / f"{n}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(file)
    rows = [f"set/test/{'ab'[n % 2]}/{n}.png,{n % 2}" for n in range(4)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows]))
    one = 6 * 3 * 8 * 6
    monkeypatch.setattr("unmask.data.room.memory", lambda: 3 * one)
    for spec in (tmp_path / "set", tmp_path / "table.csv"):
        said = message(spec)
        assert "4 pictures" in said
        assert "--examples N" in said
        assert len(load(spec, examples=3)) == 3
    monkeypatch.setattr("unmask.data.room.memory", lambda: None)
    assert len(load(tmp_path / "set")) == 4


def test_a_picture_in_sixteen_bits_is_named_by_its_file(tmp_path):
    for n in range(3):
        (tmp_path / "set" / f"class{n % 2}").mkdir(parents=True, exist_ok=True)
        image = picture(n, (8, 8), "L") if n < 2 else Image.fromarray(np.zeros((8, 8), np.uint16))
        image.save(tmp_path / "set" / f"class{n % 2}" / f"photo {n}.png")
    with pytest.raises(UnusableInput, match=r"photo 2\.png\) has mode I;16"):
        load(tmp_path / "set")
