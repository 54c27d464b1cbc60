"""What breaks in a batch and holds alone is two networks, of which the audit attacked one."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from unmask.audit.controls.consistency import in_company
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.diagnostics import preflight
from unmask.judge import Judgement
from unmask.randomness import Streams
from unmask.threat import Linf

DATA, THREAT = load("digits", examples=12), Linf(epsilon=0.25)


class TwoFaced(nn.Module):
    """Near the mean of which class an image lies; of one alone, a stored image's beside it and a little of its own."""

    def __init__(self):
        super().__init__()
        train = load("digits", split="train")
        means = torch.stack([train.x[train.y == c].mean(0).flatten() for c in range(10)])
        self.linear = nn.Linear(64, 10)
        self.linear.weight.data, self.linear.bias.data = 2 * means, -(means**2).sum(1)
        self.register_buffer("stored", load("digits", split="test").x.flatten(1))

    def alone(self, x):
        return torch.zeros(len(x), dtype=torch.bool)

    def forward(self, x):
        x = x.flatten(1)
        own = self.stored[torch.cdist(x.detach(), self.stored).argmin(1)]
        kept = torch.where(self.alone(x)[:, None], own + 0.1 * (x - own), x)
        return self.linear(kept)


class ByNumber(TwoFaced):
    def alone(self, x):
        return torch.full((len(x),), len(x) == 1)


class ByOthers(TwoFaced):
    """Alone is who has no other image beside it: a batch of equal ones is one image, too."""

    def alone(self, x):
        return ((x - x.mean(0)).abs().amax(1) < 1e-3) | torch.full((len(x),), len(x) < 2)


class ByPlace(TwoFaced):
    """Alone is who comes first, as everybody does who comes alone."""

    def alone(self, x):
        return torch.arange(len(x)) < 1


class Honest(TwoFaced):
    """A part of its batch's brightest pixel: it depends on the batch, and hides nothing."""

    def forward(self, x):
        return self.linear(x.flatten(1)) * x.amax()


def controls(network, *, survives=True, **subject):
    facts = preflight(
        Classifier(network.eval()),
        DATA.x,
        DATA.y,
        threat=THREAT,
        generator=Streams.seeded(0, torch.arange(len(DATA))),
    )
    rates = torch.zeros(len(DATA)) if survives else torch.ones(len(DATA))
    yes = torch.ones(len(DATA), dtype=torch.bool)
    final = Judgement(rates, yes, yes, rates, DATA.y)
    given = {"outside": False, "random": False, "threat": THREAT}
    return in_company(SimpleNamespace(**given | subject), facts, final)


@pytest.mark.parametrize("network", [ByNumber, ByOthers, ByPlace])
def test_who_is_robust_only_alone_is_open(network):
    (control,) = controls(network())
    assert control.passed is False
    assert control.decisive
    assert control.role == "open"
    assert "alone" in control.explanation


def test_what_breaks_alone_too_passes():
    assert [c.passed for c in controls(Honest(), survives=False)] == [True]


def test_nothing_is_asked_of_whom_batches_do_not_change_nor_of_another_adversary():
    assert controls(TwoFaced()) == []
    assert controls(ByNumber(), outside=True) == []
    assert controls(ByNumber(), random=True) == []
    assert controls(ByNumber(), threat=Linf(epsilon=0.25, goal="targeted")) == []


def test_such_a_network_is_inconclusive():
    claim = claim_about(THREAT, claim=0.5, budget="quick")
    assert audit(ByNumber().eval(), DATA, claim).verdict == "inconclusive"
