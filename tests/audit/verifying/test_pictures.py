"""The few images of a report beside the evidence and the data set, each statement wrong once."""

from types import SimpleNamespace

import pytest
import torch

from unmask.audit.records import ImageTriple, Report
from unmask.audit.verifying.pictures import as_picture, pictures, with_pixels
from unmask.data import Data

X = (torch.arange(40) / 64).reshape(5, 2, 2, 2)
DATA = Data(X, torch.zeros(5, dtype=torch.long), "d", "", torch.arange(10, 15))
EVIDENCE = SimpleNamespace(
    index=torch.tensor([13, 11]),
    label=torch.tensor([4, 7]),
    prediction=torch.tensor([5, 8]),
    x_adv=X[[3, 1]] + 0.125,
)
RIGHT = {"index": 11, "label": 7, "clean_prediction": 7, "adversarial_prediction": 8}
OTHER = {"index": 13, "label": 4, "clean_prediction": 4, "adversarial_prediction": 5}


def report(*shown):
    return Report.model_construct(images=[ImageTriple(**one) for one in shown])


def told(*shown):
    check = pictures(report(*shown), EVIDENCE, DATA)
    assert check.name == "pictures of the report"
    return check.holds, check.found


def test_pixels_are_those_of_the_same_example_in_data_and_evidence():
    (one, other) = with_pixels(report(RIGHT, OTHER), EVIDENCE, DATA).images
    assert (one.clean, one.adversarial) == (X[1].tolist(), (X[1] + 0.125).tolist())
    assert (other.clean, other.adversarial) == (X[3].tolist(), (X[3] + 0.125).tolist())


@pytest.mark.parametrize(
    ("index", "clean", "adversarial"), [(10, X[0].tolist(), []), (99, [], [])], ids=["data", "nowhere"]
)
def test_an_image_that_is_not_known_has_no_pixels(index, clean, adversarial):
    (one,) = with_pixels(report(RIGHT | {"index": index}), EVIDENCE, DATA).images
    assert (one.clean, one.adversarial) == (clean, adversarial)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 2, 2), (2, 3, 2, 2)], ids=len)
def test_every_kind_of_input_is_shown_in_rows(shape):
    one = torch.rand(shape)
    rows = torch.tensor(as_picture(one))
    assert rows.ndim == 3
    assert rows.flatten().tolist() == one.flatten().tolist()
    assert rows.shape[-1] == shape[-1]


def test_what_the_report_says_of_its_images_holds():
    assert told(RIGHT, OTHER) == (True, "2")
    assert told() == (True, "0")


PIXELS = {"clean": X[1].tolist(), "adversarial": (X[1] + 0.125).tolist()}


@pytest.mark.parametrize("which", [("clean",), ("adversarial",), ("clean", "adversarial")])
def test_pixels_in_an_older_report_are_held_to_those_found(which):
    shown = RIGHT | {name: PIXELS[name] for name in which}
    assert told(shown) == (True, "1")
    for name in which:
        assert told(shown | {name: X[3].tolist()}) == (False, "not example 11")


@pytest.mark.parametrize(
    "wrong",
    [
        {"index": 10},
        {"index": 99},
        {"label": 6},
        {"adversarial_prediction": 9},
        {"clean": [[[0.0], [0.0, 1.0]]]},
    ],
    ids=lambda v: "-".join(v),
)
def test_each_statement_that_is_wrong_is_told(wrong):
    shown = RIGHT | wrong
    assert told(OTHER, shown) == (False, f"not example {shown['index']}")


def test_an_example_of_the_evidence_that_the_data_lack_is_told():
    without = Data(X[2:], DATA.y[2:], "d", "", DATA.index[2:])
    assert not pictures(report(RIGHT), EVIDENCE, without).holds


def test_no_more_than_five_are_named():
    assert told(*[RIGHT | {"label": 0}] * 7) == (False, "not example 11, 11, 11, 11, 11")
