"""Files larger than memory: rows are read where they lie, or the file is refused in one line before it is read."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unmask.claim.target_classes import load_for
from unmask.data import check, load
from unmask.data.room import memory
from unmask.data.sample import places
from unmask.errors import UnusableInput

N, SIDE = 60, 8
RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (N, SIDE, SIDE, 3), np.uint8)
FLOATS = RNG.random((N, 3, SIDE, SIDE), np.float32)
VECTORS = RNG.normal(size=(N, 5)) * 9
Y = RNG.permutation(np.arange(N) % 3)


def npy(folder, x, y):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return folder / "x.npy"


def by_columns(folder, x, y):
    return npy(folder, np.asfortranarray(x), y)


def other_bytes(folder, x, y):
    return npy(folder, x.astype(x.dtype.newbyteorder(">")), y)


def npz(folder, x, y):
    np.savez(folder / "a.npz", x=x, y=y[:, None])
    return folder / "a.npz"


def compressed(folder, x, y):
    np.savez_compressed(folder / "b.npz", x=x, y=y)
    return folder / "b.npz"


def safetensors(folder, x, y):
    save_file({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "a.safetensors")
    return folder / "a.safetensors"


def pt(folder, x, y):
    torch.save({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, folder / "a.pt")
    return folder / "a.pt"


def pt_of_old(folder, x, y):
    torch.save({"x": x, "y": y}, folder / "old.pt", _use_new_zipfile_serialization=False)
    return folder / "old.pt"


def pkl(folder, x, y):
    (folder / "a.pkl").write_bytes(pickle.dumps({"x": x, "y": y}))
    return folder / "a.pkl"


def csv(folder, x, y):
    rows = [",".join(map(repr, map(float, row))) for row in x.reshape(len(x), -1)]
    head = ",".join(f"c{n}" for n in range(rows[0].count(",") + 1))
    (folder / "a.csv").write_text(
        "\n".join([f"{head},label", *(f"{r},{c}" for r, c in zip(rows, y, strict=True))])
    )
    return folder / "a.csv"


KINDS = [npy, by_columns, other_bytes, npz, compressed, safetensors, pt, pt_of_old, pkl]
# What has to be read as a whole, or is mapped by others, who map no more than memory holds.
WHOLE = [compressed, safetensors, pt, pt_of_old, pkl]


@pytest.mark.parametrize("save", [*KINDS, csv])
@pytest.mark.parametrize("box", ["", "(box=data)", "(box=[-99, 99])"])
def test_a_sample_of_vectors_is_that_of_the_whole_in_units_of_the_whole(save, box, tmp_path):
    spec = f"{save(tmp_path, VECTORS, Y)}{box}"
    whole, some = load(spec, allow_pickle=True), load(spec, examples=12, seed=3, allow_pickle=True)
    assert some.index.tolist() == places(Y, 12, 3, "").tolist()
    assert torch.equal(some.x, whole.x[some.index])
    assert torch.equal(some.y, torch.from_numpy(Y)[some.index])
    assert some.notes == whole.notes
    assert torch.equal(some.box.low, whole.box.low)
    width = some.box.high - some.box.low
    torch.testing.assert_close(
        (some.x * width + some.box.low).numpy(), VECTORS[some.index], atol=1e-4, rtol=1e-5
    )


@pytest.mark.parametrize("save", KINDS)
@pytest.mark.parametrize("x", [BYTES, FLOATS], ids=["bytes", "floats"])
def test_a_sample_of_images_is_that_of_the_whole(save, x, tmp_path):
    some = load(save(tmp_path, x, Y), examples=12, seed=3, allow_pickle=True)
    wanted = torch.from_numpy(FLOATS if x is FLOATS else BYTES.transpose(0, 3, 1, 2) / np.float32(255))
    assert torch.equal(some.x, wanted[some.index])
    assert some.x.is_contiguous()


@pytest.mark.parametrize("save", [npy, by_columns, npz])
def test_of_what_lies_mapped_a_sample_is_read_and_more_is_refused(save, tmp_path, monkeypatch):
    spec = save(tmp_path, FLOATS, Y)
    monkeypatch.setattr("unmask.data.room.memory", lambda: 20 * 4 * 3 * SIDE * SIDE)
    assert len(load(spec, examples=20)) == 20
    with pytest.raises(UnusableInput, match=rf"60 examples of {spec}.* GB.*--examples N"):
        load(spec)


@pytest.mark.parametrize("save", WHOLE)
def test_what_must_be_read_as_a_whole_is_refused_before_it_is(save, tmp_path, monkeypatch):
    spec = save(tmp_path, FLOATS, Y)
    monkeypatch.setattr("unmask.data.room.memory", lambda: FLOATS.nbytes - 1)
    with pytest.raises(UnusableInput, match=r"GB.*numpy\.savez, of which --examples N"):
        load(spec, examples=2, allow_pickle=True)


def test_a_table_of_numbers_is_refused_while_it_is_read(tmp_path, monkeypatch):
    x = np.zeros((2500, 4))
    spec = csv(tmp_path, x, np.arange(2500) % 2)
    monkeypatch.setattr("unmask.data.room.memory", lambda: 1999 * 4 * 20)
    with pytest.raises(UnusableInput, match=r"first 2000 rows of .* alone take .*numpy\.savez"):
        load(spec, examples=2)
    monkeypatch.setattr("unmask.data.room.memory", lambda: 2000 * 4 * 20)
    assert len(load(spec, examples=2)) == 2


def test_a_sample_of_a_file_larger_than_this_machines_memory(tmp_path):
    """It is a hole, but for its header and two rows: neither disk nor memory holds it."""
    row = 3 * 224 * 224
    rows = 2 * (memory() or 2**40) // row
    with (tmp_path / "images.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (rows, 3, 224, 224)}
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        for n in (1, rows - 1):
            file.seek(begin + n * row)
            file.write(bytes([n % 251]) * row)
    np.save(tmp_path / "labels.npy", np.arange(rows) % 2)
    last = load(tmp_path / "images.npy", examples=2)
    assert torch.equal(last.x[1], torch.full((3, 224, 224), 1 / 255))
    some = load(tmp_path / "images.npy", examples=4, seed=0)
    assert some.index.max() > 4
    with pytest.raises(UnusableInput, match="--examples N"):
        load(tmp_path / "images.npy")


def test_what_leaves_the_range_elsewhere_decides_the_units_of_a_sample(tmp_path):
    x = VECTORS.copy()
    x[-1] = 1000.0
    assert load(npy(tmp_path, x, Y), examples=2).x.max() < 0.2
    x[-1, 0] = np.nan
    with pytest.raises(UnusableInput, match="NaN or infinite values in 1 of 60 examples"):
        load(npy(tmp_path, x, Y), examples=2)


def test_what_python_is_given_is_copied():
    mine = FLOATS.copy()
    x, *_ = check(mine, Y, name="mine")
    mine[:] = 0
    assert x.sum() > 0


def test_a_sample_without_the_target_class_reads_no_more(tmp_path, monkeypatch):
    spec = npz(tmp_path, FLOATS, Y)
    whole = load_for(2, str(spec), split=None, examples=None, seed=0, allow_pickle=False)
    assert whole.index.tolist() == np.flatnonzero(Y != 2).tolist()
    monkeypatch.setattr("unmask.data.room.memory", lambda: 20 * 4 * 3 * SIDE * SIDE)
    some = load_for(2, str(spec), split=None, examples=20, seed=0, allow_pickle=False)
    assert some.y.bincount().tolist() == [10, 10]
    assert torch.equal(some.x, torch.from_numpy(FLOATS)[some.index])
    with pytest.raises(UnusableInput, match="holds 40 images that are not of the target class 2"):
        load_for(2, str(spec), split=None, examples=41, seed=0, allow_pickle=False)
