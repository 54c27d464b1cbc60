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


def test_such_a_network_is_audited():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    data, claim = load("digits", examples=4), claim_about(Linf(epsilon=0.3), budget="quick")
    with torch.no_grad():
        data.y.copy_(net(data.x).argmax(1))
    stored, dense = (audit(n, data, claim) for n in (Stores("coordinates", net), net))
    assert stored.robust_accuracy == dense.robust_accuracy
