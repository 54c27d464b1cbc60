"""Weights that are stored in no ordinary way, and networks without a mode: each is audited, none ends in a crash."""

import pytest
import torch
from tests.fixtures.digits_networks import trained
from torch import nn
from torch.nn.utils import parametrizations, prune

from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.target.load import checkpoint_hash
from unmask.threat import Linf
from unmask.types import plain

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


class Int8(torch.Tensor):
    """A weight of 8 bits with a scale a row, as quantisation libraries wrap it: `F.linear` alone is defined on it."""

    @staticmethod
    def __new__(cls, whole, scale):
        return torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=scale.dtype)

    def __init__(self, whole, scale):
        self.whole, self.scale = whole, scale

    def __tensor_flatten__(self):
        return ["whole", "scale"], None

    @staticmethod
    def __tensor_unflatten__(inner, context, size, stride):
        return Int8(inner["whole"], inner["scale"])

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is nn.functional.linear:
            x, weight, bias = args
            return nn.functional.linear(x, weight.whole * weight.scale, bias)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return Int8(args[0].whole, args[0].scale)
        raise NotImplementedError(f"Int8 knows no {func}")


def wrapped(shift=0):
    network = trained("plain_mlp")
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            scale = layer.weight.detach().abs().amax(1, keepdim=True) / 127
            whole = (layer.weight.detach() / scale).round().to(torch.int8) + shift
            layer.weight = nn.Parameter(Int8(whole, scale), requires_grad=False)
    return network.eval()


NETWORKS = {
    "weights that wrap others": wrapped,
    "sparse in coordinates": lambda: Sparse("coo"),
    "sparse in rows": lambda: Sparse("csr"),
    "frozen script": frozen,
    "traced script": scripted,
    "pruned": pruned,
    "weight norm": normed,
}


REST = ("sparse in rows", "frozen script", "weight norm")  # siblings of what stands beside them


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in REST)) for n in NETWORKS])
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


def test_the_hash_tells_weights_that_wrap_others_apart():
    assert checkpoint_hash(wrapped()) == checkpoint_hash(wrapped())
    assert checkpoint_hash(wrapped()) != checkpoint_hash(wrapped(shift=1))


class Wraps(torch.Tensor):
    """A subclass that wraps what `inner` names, as a library's quantised weight does; some name nothing."""

    @staticmethod
    def __new__(cls, *inner):
        made = torch.Tensor._make_wrapper_subclass(cls, (2, 2))
        for n, tensor in enumerate(inner):
            setattr(made, f"part{n}", tensor)
        made.names = [f"part{n}" for n in range(len(inner))]
        return made

    def __tensor_flatten__(self):
        return self.names, None

    @staticmethod
    def __tensor_unflatten__(inner, *_):
        return Wraps(*inner.values())

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise NotImplementedError(func)


@pytest.mark.parametrize("inner", [(), (torch.ones(2),), (torch.ones(2), torch.zeros(1, dtype=torch.int8))])
def test_a_tensor_that_wraps_others_or_none_has_their_values(inner):
    found = plain(Wraps(*inner))
    assert found.dtype == torch.float64
    assert found.tolist() == [float(v) for part in inner for v in part]


@pytest.mark.parametrize("layer", [nn.LazyLinear(10), nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()], ids=repr)
def test_weights_that_do_not_exist_yet_are_named(layer):
    network = nn.Sequential(layer, nn.Flatten())
    with pytest.raises(UnusableInput, match=r"`0` is a Lazy\w+, whose weights are made by its first call"):
        audit(network.eval(), load("digits", examples=4), claim_about(Linf(epsilon=0.05), budget="quick"))
