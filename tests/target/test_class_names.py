"""Class names travel from a network's configuration to the report, and a changed order is told."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import unmask
from unmask.target.class_names import classes_of_network, otherwise_called


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
