"""Logits that do not lie plainly in memory are read as the numbers they stand for."""

import pytest
import torch
from torch import nn

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.types import Outputs, strided

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
STREAMS = Streams.seeded(0, torch.arange(3))
DENSE = nn.Sequential(nn.Flatten(), nn.Linear(16, 5)).eval()
STORED = {
    "coordinates": lambda z: z.to_sparse(),
    "rows": lambda z: z.to_sparse_csr(),
    "columns": lambda z: z.to_sparse_csc(),
    "oneDNN": lambda z: z.to_mkldnn(),
    "nested": lambda z: torch.nested.as_nested_tensor(list(z), layout=torch.jagged),
}


class Stores(nn.Module):
    def __init__(self, how, net=DENSE):
        super().__init__()
        self.how, self.net = STORED[how], net

    def forward(self, x):
        return self.how(self.net(x))


@pytest.mark.filterwarnings("ignore:Sparse C")
@pytest.mark.parametrize("how", STORED)
def test_logits_and_their_gradient_are_those_of_plain_storage(how):
    x, plain = X.clone().requires_grad_(), X.clone().requires_grad_()
    found = Classifier(Stores(how))(x, generator=STREAMS).logits
    torch.testing.assert_close(found, DENSE(plain))
    found.square().sum().backward()
    DENSE(plain).square().sum().backward()
    torch.testing.assert_close(x.grad, plain.grad)


@pytest.mark.parametrize(
    "returned", [lambda z: {"logits": z}, lambda z: Outputs(z, z.sum(1))], ids=["dict", "own"]
)
def test_so_are_those_inside_of_something_else(returned):
    assert Outputs.of(returned(DENSE(X).detach().to_sparse())).logits.layout == torch.strided


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_quantised_ones_too():
    z = torch.tensor([[1.0, 2.0]])
    assert torch.equal(strided(torch.quantize_per_tensor(z, 0.5, 0, torch.qint8)), z)


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        (torch.bool, torch.float32),
        (torch.uint8, torch.float32),
        (torch.int16, torch.float32),
        (torch.int32, torch.float64),
        (torch.int64, torch.float64),
    ],
)
def test_whole_numbers_are_read_as_floats_that_hold_them(kind, read):
    largest = 1 if kind is torch.bool else torch.iinfo(kind).max if kind is not torch.int64 else 2**53
    z = torch.tensor([[largest, largest - 1]]).to(kind)
    for returned in (z, {"logits": z}, Outputs(z)):
        found = Outputs.of(returned).logits
        assert found.dtype == read
        assert found.tolist() == z.tolist()
        assert found.argmax() == 0


class Votes(nn.Module):
    """Hypervectors of signs, compared bit by bit."""

    def __init__(self, kind, net):
        super().__init__()
        self.kind = kind
        self.register_buffer("items", torch.randn(64, 256, generator=torch.Generator().manual_seed(0)))
        self.register_buffer("codes", (net[1].weight.detach() @ self.items).sign())

    def forward(self, x):
        bits = torch.where((x.flatten(1) - 0.3) @ self.items < 0, -1, 1)
        return (bits.unsqueeze(1) == self.codes).sum(-1).to(self.kind)


def test_votes_in_whole_numbers_are_audited_as_the_same_in_floats():
    data, claim = load("digits", examples=6), claim_about(Linf(epsilon=0.1), budget="quick")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole, floats = (Votes(kind, net).eval() for kind in (torch.int64, torch.float64))
    with torch.no_grad():
        data.y.copy_(whole(data.x).argmax(1))
    said, same = (audit(n, data, claim) for n in (whole, floats))
    assert said.robust_accuracy == same.robust_accuracy < 1
    assert said.naive_robust_accuracy == same.naive_robust_accuracy
    (named,) = said.masking  # that of floats has the cast to them as well, where the decision takes effect
    assert (named.operation, named.line) in {(m.operation, m.line) for m in same.masking}
    assert named.operation == "torch.lt"


def test_such_a_network_is_audited():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    data, claim = load("digits", examples=4), claim_about(Linf(epsilon=0.3), budget="quick")
    with torch.no_grad():
        data.y.copy_(net(data.x).argmax(1))
    stored, dense = (audit(n, data, claim) for n in (Stores("coordinates", net), net))
    assert stored.robust_accuracy == dense.robust_accuracy
