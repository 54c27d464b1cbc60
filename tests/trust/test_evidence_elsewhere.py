"""What breaks a network only after others were asked is no evidence, and no verdict rests on it."""

import json
import sys

import pytest
import torch
from torch import nn

from unmask.audit.confirm import NAME, as_verified
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import Data
from unmask.diagnostics.pristine import Pristine
from unmask.errors import ModelFailed
from unmask.threat import Linf

N = 16
X = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
QUESTION = {
    "x_adv": X[:4],
    "x": X,
    "first": False,
    "passes": 1,
    "average": None,
    "batch_size": 3,
    "device": "cpu",
    "state": [],
}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return x.flatten(1) @ self.weight


Y = Plain()(X).argmax(1)


class Tires(Plain):
    """After so many calls it takes the second best class, and counts them where no state is looked for."""

    calls = 200
    place = json

    def forward(self, x):
        self.place.__dict__["_asked_by_a_test"] = asked = self.place.__dict__.get("_asked_by_a_test", 0) + 1
        logits = super().forward(x)
        if asked <= self.calls:
            return logits
        two = logits.topk(2).indices
        return logits.scatter(1, two.flip(1), logits.gather(1, two))


class TiresOfAnother(Tires):
    calls, place = 400, sys


@pytest.fixture(autouse=True)
def nobody_has_asked():
    yield
    for place in (json, sys):
        place.__dict__.pop("_asked_by_a_test", None)


def audited(network):
    data = Data(X, Y, "tensors", "", torch.arange(N))
    return audit(network, data, claim_about(Linf(epsilon=0.001), claim=0.9, budget="quick"))


@pytest.mark.parametrize("build", [Tires, pytest.param(TiresOfAnother, marks=pytest.mark.slow)])
def test_what_does_not_hold_for_who_asks_first_refutes_nothing(build):
    report = audited(build().eval())
    assert report.verdict == "inconclusive"
    (control,) = [c for c in report.controls if c.name == NAME]
    assert control.role == "open"
    assert control.value == 1
    assert report.clean_accuracy == 1
    assert report.robust_accuracy == 1


def test_an_honest_networks_evidence_is_left_as_it_is():
    report = audited(Plain().eval())
    assert NAME not in [c.name for c in report.controls]
    assert report.robust_accuracy <= 1


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_the_questions_are_put_one_after_another_to_who_has_heard_none(batch_size):
    network = Tires().eval()
    network.calls = 2
    apart = Pristine(network, as_verified)
    try:
        network(X)
        told = [apart.also(QUESTION | {"batch_size": batch_size}, 60) for _ in range(2)]
    finally:
        apart.close()
    assert torch.equal(told[0]["clean"][0], told[1]["clean"][0])
    # Two calls are answered rightly; the evidence goes first.
    right = torch.cat([told[0]["of"][0].argmax(1) == Y[:4], told[0]["clean"][0].argmax(1) == Y])
    assert int(right.sum()) == {1: 2, 3: 4, 64: 4 + N}[batch_size]
    assert bool(told[0]["of"][1].all())


def test_who_takes_too_long_is_not_waited_for():
    class Slow(Plain):
        def forward(self, x):
            while True:
                pass

    apart = Pristine(Slow(), as_verified)
    try:
        with pytest.raises(ModelFailed, match="that was split off"):
            apart.also(QUESTION, 0.2)
    finally:
        apart.close()
