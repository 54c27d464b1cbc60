"""Weights that are stored in no ordinary way, and networks without a mode: each is audited, none ends in a crash."""

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn
from torch.nn.utils import parametrizations, prune

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.target.load import checkpoint_hash
from unmask.threat import Linf

pytestmark = pytest.mark.filterwarnings("ignore")


class Sparse(nn.Module):
    """A weight in one of torch's sparse layouts, before the plain network."""

    def __init__(self, layout):
        super().__init__()
        self.plain = trained("plain_mlp")
        weight = torch.eye(64)
        self.weight = nn.Parameter(
            weight.to_sparse() if layout == "coo" else weight.to_sparse_csr(), requires_grad=False
        )

    def forward(self, x):
        return self.plain(torch.sparse.mm(self.weight, x.flatten(1).T).T.reshape(x.shape))


def frozen():
    return torch.jit.freeze(torch.jit.script(trained("plain_mlp").layers.eval()))


def scripted():
    return torch.jit.trace(trained("plain_mlp").eval(), torch.rand(2, 1, 8, 8))


def pruned():
    network = trained("plain_mlp")
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            prune.l1_unstructured(layer, "weight", 0.3)
    return network.eval()


def normed():
    network = trained("plain_mlp")
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            parametrizations.weight_norm(layer)
    return network.eval()


NETWORKS = {
    "sparse in coordinates": lambda: Sparse("coo"),
    "sparse in rows": lambda: Sparse("csr"),
    "frozen script": frozen,
    "traced script": scripted,
    "pruned": pruned,
    "weight norm": normed,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_audited(name):
    network = NETWORKS[name]()
    report = audit(network, load("digits", examples=8), claim_about(Linf(epsilon=0.1), budget="quick"))
    assert report.verdict in ("not_refuted", "inconclusive")
    assert report.clean_accuracy > 0.8


def test_the_hash_tells_weights_of_other_layouts_apart():
    ones = Sparse("coo")
    twos = Sparse("coo")
    twos.weight = nn.Parameter(2 * torch.eye(64).to_sparse(), requires_grad=False)
    assert checkpoint_hash(ones) == checkpoint_hash(Sparse("coo"))
    assert checkpoint_hash(ones) != checkpoint_hash(twos)
