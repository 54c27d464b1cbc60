"""Class names travel from a network's configuration to the report, and a changed order is told."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import unmask
from unmask.audit.run import audit
from unmask.claim.claim import Claim
from unmask.classifier import Classifier
from unmask.data import Data
from unmask.target.class_names import classes_of_network, in_order_of, otherwise_called


class Named(nn.Module):
    """As a classifier of transformers: its configuration says what its outputs are called."""

    def __init__(self, names):
        super().__init__()
        self.config = SimpleNamespace(id2label=names)
        self.head = nn.Linear(4, len(names))

    def forward(self, x):
        return self.head(x.flatten(1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({0: "cat", 1: "dog"}, ("cat", "dog")),
        ({"1": "dog", "0": "cat"}, ("cat", "dog")),  # keys of JSON, in any order
        ({0: "LABEL_0", 1: "LABEL_1"}, ()),
        ({0: "0", 1: "1"}, ()),
        ({0: "cat", 2: "dog"}, ()),
        ({}, ()),
    ],
)
def test_names_are_those_of_the_configuration_if_they_name_something(names, expected):
    found = Named(names or {0: "LABEL_0"})
    found.config.id2label = names
    assert classes_of_network(found) == expected
    assert classes_of_network(nn.Sequential(nn.Identity(), found)) == expected


def test_a_function_has_none():
    assert classes_of_network(lambda x: x) == ()


@pytest.mark.parametrize(
    ("network", "data", "moved"),
    [
        (("cat", "dog", "cow"), ("cat", "dog", "cow"), 0),
        (("Cat, house cat", "sea_lion"), ("cat", "sea lion"), 0),
        (("cat", "dog", "cow"), ("dog", "cat", "cow"), 2),
        (
            ("background", "cat", "dog"),
            ("cat", "dog"),
            2,
        ),  # one place further, as with a class of its own for nothing
        (("cat", "dog"), ("kitten", "puppy"), 0),
        ((), ("cat",), 0),
        (("cat",), (), 0),
    ],
)
def test_the_same_name_in_another_place_is_told(network, data, moved):
    line = otherwise_called(network, data)
    assert (line is None) == (moved == 0)
    assert line is None or line.startswith(f"{moved} of the data's {len(data)} classes")


def test_names_reach_the_report():
    torch.manual_seed(0)
    x, y = torch.rand(8, 1, 2, 2), torch.arange(8) % 2
    report = unmask.audit(Named({0: "cat", 1: "dog"}).eval(), x, y, norm="linf", epsilon=0.1, budget="quick")
    assert report.class_names == ["cat", "dog"]


def data_of(names, labels=(0, 1, 1, 2)):
    y = torch.tensor(labels)
    return Data(torch.rand(len(y), 1, 2, 2), y, "d", "", torch.arange(len(y)), class_names=names)


@pytest.mark.parametrize("wrapped", [lambda n: n, Classifier, lambda n: Classifier(nn.Sequential(n))])
def test_labels_follow_the_networks_names(wrapped):
    network = wrapped(Named({0: "cow", 1: "Cat, house cat", 2: "sea_lion", 3: "dog"}))
    data = in_order_of(network, data_of(("cat", "dog", "sea lion")))
    assert data.y.tolist() == [1, 3, 3, 2]
    assert data.class_names == ("cow", "Cat, house cat", "sea_lion", "dog")
    (note,) = data.notes
    assert note.startswith(
        "labels follow the network's names for its classes: 'cat' is 1, which the data call 0;"
    )
    again = in_order_of(network, data)
    assert again is data


@pytest.mark.parametrize(
    ("network", "data"),
    [
        (("cat", "dog", "cow"), ("cat", "dog", "cow")),  # as they are
        (("cat", "dog", "cow"), ("cat", "dog")),
        (("dog", "cat"), ("cat", "puppy")),  # not all are known
        (("dog", "cat", "cat, big"), ("cat", "dog")),  # which of two?
        (("dog", "cat"), ("cat", "cat")),
        (("dog", "cat"), ()),
        ((), ("cat", "dog")),
    ],
)
def test_labels_stay_where_names_do_not_say_all(network, data):
    named = Named(dict(enumerate(network))) if network else nn.Linear(2, 2)
    given = data_of(data, labels=(0, 1))
    assert in_order_of(named, given) is given


def test_a_label_without_a_name_stays():
    given = data_of(("cat", "dog"), labels=(0, 1, 2))
    assert in_order_of(Named({0: "dog", 1: "cat", 2: "cow"}), given) is given


def test_an_audit_by_names_is_that_of_the_right_labels():
    torch.manual_seed(0)
    network, given = Named({0: "dog", 1: "cat"}).eval(), data_of(("cat", "dog"), labels=(0, 1, 1, 0))
    report = audit(network, given, Claim(norm="linf", epsilon=0.01, budget="quick"))
    expected = (network(given.x).argmax(1) == 1 - given.y).double().mean()
    assert report.clean_accuracy == expected
    assert report.table.label == [1, 0, 0, 1]
    assert any(line.startswith("labels follow") for line in report.warnings)
