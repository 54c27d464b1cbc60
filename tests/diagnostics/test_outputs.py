"""What a network returns beside its logits."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import torch

from unmask.classifier import Classifier
from unmask.diagnostics import preflight
from unmask.randomness import Streams

X = torch.rand(20, 1, 4, 4, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))


def logits(x):
    return x.flatten(1) @ WEIGHT


@dataclass
class Answer:
    logits: torch.Tensor
    rejection: torch.Tensor


class Named(NamedTuple):
    logits: torch.Tensor
    anomaly: torch.Tensor


def warnings(network):
    found = preflight(
        Classifier(network),
        X,
        logits(X).argmax(1),
        generator=Streams.seeded(0, torch.arange(20), "preflight"),
    )
    return [line for line in found.warnings if "not read" in line]


@pytest.mark.parametrize(
    ("network", "name"),
    [
        (lambda x: {"logits": logits(x), "score": x.flatten(1).sum(1)}, "`score`"),
        (lambda x: {"logits": logits(x), "ood": x.flatten(1).sum(1, keepdim=True)}, "`ood`"),
        (lambda x: {"logits": logits(x), "flag": x.flatten(1).sum(1) > 8}, "`flag`"),
        (lambda x: {"logits": logits(x), "energy": np.zeros(len(x))}, "`energy`"),
        (lambda x: Answer(logits(x), x.flatten(1).sum(1)), "`rejection`"),
        (lambda x: Named(logits(x), x.flatten(1).sum(1)), "`anomaly`"),
        (lambda x: {"logits": logits(x), "a": x[:, 0, 0, 0], "b": x[:, 0, 0, 1]}, "`a`, `b`, a number for each"),
    ],
)  # fmt: skip
def test_a_score_that_is_called_otherwise_is_named(network, name):
    (line,) = warnings(network)
    assert name in line
    assert "read as `detector_score`" in line


@pytest.mark.parametrize(
    "network",
    [
        logits,
        lambda x: {"logits": logits(x), "loss": torch.zeros(len(x)), "features": x.flatten(1), "n": torch.zeros(3)},
        lambda x: {"logits": logits(x), "detector_score": x.flatten(1).sum(1) - 100},
        lambda x: {"logits": logits(x), "hidden_states": (x,), "attentions": None},
    ],
    ids=["logits alone", "other shapes", "read", "as transformers return"],
)  # fmt: skip
def test_nothing_else_is(network):
    assert warnings(network) == []
