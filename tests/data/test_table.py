"""Tables as spreadsheets and pandas write them, and labels that are none."""

import numpy as np
import pytest
import torch

from unmask.data import check, load
from unmask.errors import UnmaskError

TABLE = [("a", "b", "label"), ("0.5", "1", "cat"), ("0.25", "0", "dog"), ("1", "0.75", "cat")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table_is_parted_by_what_stands_in_its_header(tmp_path, delimiter):
    (tmp_path / "t.csv").write_text("\n".join(delimiter.join(row) for row in TABLE))
    data = load(tmp_path / "t.csv")
    assert data.x.tolist() == [[0.5, 1], [0.25, 0], [1, 0.75]]
    assert data.class_names == ("cat", "dog")
    if delimiter == ",":
        return
    text = "\n".join(delimiter.join(cell.replace(".", ",") for cell in row) for row in TABLE)
    (tmp_path / "t.csv").write_text(text)
    again = load(tmp_path / "t.csv")
    assert torch.equal(again.x, data.x)
    assert any("decimal commas" in note for note in again.notes)
    assert not any("decimal commas" in note for note in data.notes)


def test_columns_are_told_apart_where_none_is_a_label(tmp_path):
    (tmp_path / "t.csv").write_text("a;b;c\n1;2;3\n")
    with pytest.raises(UnmaskError, match="has the columns a, b, c; it needs"):
        load(tmp_path / "t.csv")


@pytest.mark.parametrize("first", [["", "0", "1", "2"], ["Unnamed: 0", "7", "0", "12"]])
def test_the_index_that_pandas_wrote_is_no_feature(tmp_path, first):
    plain = ["a,b,label", "0,1,0", "1,0,1", "1,1,0"]
    (tmp_path / "t.csv").write_text("\n".join(plain))
    (tmp_path / "i.csv").write_text("\n".join(f"{n},{row}" for n, row in zip(first, plain, strict=True)))
    (tmp_path / "ii.csv").write_text("\n".join(f"{n},{n},{row}" for n, row in zip(first, plain, strict=True)))
    for name, left in (("i.csv", 1), ("ii.csv", 2)):
        data = load(tmp_path / name)
        assert torch.equal(data.x, load(tmp_path / "t.csv").x)
        assert sum("it is left out" in note for note in data.notes) == left


@pytest.mark.parametrize("first", [["", "0", "1", "1"], ["", "0.5", "1", "2"], ["age", "0", "1", "2"]])
def test_what_is_no_index_is_a_feature(tmp_path, first):
    plain = ["a,b,label", "0,1,0", "1,0,1", "1,1,0"]
    (tmp_path / "i.csv").write_text("\n".join(f"{n},{row}" for n, row in zip(first, plain, strict=True)))
    assert load(tmp_path / "i.csv").x.shape == (3, 3)


def test_labels_that_are_no_whole_numbers_are_not_cut_off():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(UnmaskError, match=r"float64 and holds 1.5, which is no class"):
        check(x, np.array([0.0, 1.5, 2.0]), name="a")
    with pytest.raises(UnmaskError, match=r"holds nan"):
        check(x, np.array([0.0, np.nan, 2.0]), name="a")
    with pytest.raises(UnmaskError, match=r"save y.astype\('int64'\)"):
        check(x, np.array([0.0, 1.0, 2.0]), name="a")


def test_names_of_classes_are_numbered_and_the_numbers_said(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,label\n1,2,well\n3,4,ill\n5,7,well\n")
    data = load(tmp_path / "t.csv")
    assert data.y.tolist() == [1, 0, 1]
    assert any("0 ill, 1 well" in note for note in data.notes)
