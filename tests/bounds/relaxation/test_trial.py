"""Networks that cannot be followed: a refusal in one line, whatever they do, and never the end of the process."""

import ctypes
import gc
import os
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.bounds import certify
from unmask.bounds.relaxation import trial
from unmask.bounds.relaxation.graph import read_graph
from unmask.errors import Unsupported
from unmask.threat import Linf

X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A linear layer, and what a test does behind it."""

    def __init__(self, behind):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.behind = nn.Linear(64, 10), behind

    def forward(self, x):
        return self.behind(self.linear(x.flatten(1)))


def native(z):
    """What a native session does with a placeholder."""
    if not isinstance(z, torch.Tensor):
        ctypes.string_at(0)
    return z


def slow(z):
    if not isinstance(z, torch.Tensor):
        time.sleep(30)
    return z


def leaves(z):
    if not isinstance(z, torch.Tensor):
        os._exit(0)  # the child does not even raise
    return z


def raises(error):
    def behind(z):
        if isinstance(z, torch.Tensor):
            return z
        raise error

    return behind


WAYS_OUT = {
    "numpy": lambda z: torch.from_numpy(z.detach().numpy() * 2),
    "asarray": lambda z: torch.from_numpy(np.asarray(z.detach()) * 2),
    "pointer": lambda z: z * float(z.data_ptr() > 0),
    "dlpack": lambda z: torch.from_numpy(np.from_dlpack(z.detach()).copy()),
}
REFUSED = {
    "batch joined": lambda z: torch.cat([z, z])[: len(z)],
    "vstack": lambda z: torch.vstack([z, z])[: len(z)],
    "stacked along the batch": lambda z: torch.stack([z, z]).mean(0),
    "a constant joined": lambda z: torch.cat([z, torch.zeros(2, 1)], 1)[:, :10],
    "padding with ones": lambda z: F.pad(z, (0, 1), value=1.0)[:, :10],
    "einsum": lambda z: torch.einsum("bi,ij->bj", z, torch.eye(10)),
    "sparse": lambda z: torch.sparse.mm(torch.eye(10).to_sparse(), z.T).T,
    "a decision": lambda z: z if z.sum() > 0 else -z,
    "a loop": lambda z: sum(v for v in z.T).unsqueeze(1).expand(-1, 10),
    "a dictionary": lambda z: {"logits": z},
    "ValueError": raises(ValueError("not on proxies")),
    "RuntimeError": raises(RuntimeError("no")),
    "SystemExit": raises(SystemExit(0)),
    "KeyError": raises(KeyError("no")),
}


@pytest.mark.parametrize("name", WAYS_OUT)
def test_who_leaves_torch_is_not_traced(name, monkeypatch):
    monkeypatch.setattr(trial, "trace", lambda network: pytest.fail("it was traced"))
    with pytest.raises(Unsupported, match="leaves torch"):
        read_graph(Net(WAYS_OUT[name]).eval(), X)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_followed_is_refused(name):
    with pytest.raises(Unsupported):
        read_graph(Net(REFUSED[name]).eval(), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_scripts_and_sparse_parameters_are_refused():
    scripted = torch.jit.freeze(torch.jit.trace(Net(torch.relu).eval(), X))
    with pytest.raises(Unsupported):
        read_graph(scripted, X)
    sparse = Net(torch.relu).eval()
    sparse.linear.weight = nn.Parameter(sparse.linear.weight.detach().to_sparse())
    with pytest.raises(Unsupported):
        certify(sparse, X, torch.zeros(2, dtype=torch.int64), Linf(epsilon=0.1))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_crash_of_native_code_ends_a_child_and_no_audit(monkeypatch):
    children, fork = [], os.fork
    monkeypatch.setattr(os, "fork", lambda: children.append(fork()) or children[-1])
    with pytest.raises(Unsupported, match=r"crashes the process \(SIG"):
        read_graph(Net(native).eval(), X)
    monkeypatch.setattr(trial, "PATIENCE", 0.3)
    with pytest.raises(Unsupported, match="did not end within"):
        read_graph(Net(slow).eval(), X)
    assert len(children) == 2
    for child in children:
        with pytest.raises(ChildProcessError):  # nobody is left behind
            os.waitpid(child, os.WNOHANG)


def test_who_survived_once_is_not_tried_again(monkeypatch):
    network = Net(torch.relu).eval()
    read_graph(network, X)
    monkeypatch.setattr(trial, "_child", lambda call: pytest.fail("tried again"))
    read_graph(network, X)
    del network
    gc.collect()
    assert not any(known() is None for known in trial._survivors.values())


FOLLOWED = {
    "len": lambda z: z.reshape(len(z), 10),
    "size": lambda z: z.reshape(z.size(0), -1),
    "shape": lambda z: z.reshape(z.shape[0], z.shape[1]),
    "number of dimensions": lambda z: z * (len(z.shape) - 1),
}


@pytest.mark.parametrize("behind", FOLLOWED.values(), ids=FOLLOWED.keys())
def test_lengths_are_followed(behind):
    graph = read_graph(Net(behind), X)
    assert torch.allclose(graph(X), Net(lambda z: z)(X).double(), atol=1e-6)
    assert "len" not in globals()  # what stood in for it is gone


OF_VALUES = {
    "a decision": lambda z: z if z.sum() > 0 else -z,
    "a loop": lambda z: torch.stack([row * 1 for row in z]),
    "a number": lambda z: z * float(z.max() >= z.min()),
    "written into": lambda z: z.clone().index_put_((torch.tensor(0),), z[0]).__setitem__(0, z[0]) or z,
}


@pytest.mark.parametrize("behind", OF_VALUES.values(), ids=OF_VALUES.keys())
def test_what_wants_values_is_told_in_our_own_words(behind):
    with pytest.raises(Unsupported) as caught:
        read_graph(Net(behind), X)
    assert "takes numbers out of its tensors" in str(caught.value)
    assert "test_trial.py:" in str(caught.value)
    assert "torch.fx" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda x: torch.zeros(len(x), 3), "zeros"),
        (lambda x: torch.ones(x.shape[0], 3), "ones"),
        (lambda x: torch.empty(x.size(0), 3).fill_(0), "empty"),
    ],
    ids=["len", "shape", "size"],
)
def test_a_constant_made_for_each_batch_is_told_in_words_and_one_row_of_it_is_bounded(make, name):
    class Started(nn.Module):
        def __init__(self, start):
            super().__init__()
            self.net, self.start = nn.Linear(4, 3), start

        def forward(self, x):
            return self.start(x) + self.net(x)

    x = torch.rand(2, 4)
    with pytest.raises(Unsupported, match=rf"by torch\.{name} \(.*; one row, as torch\.{name}\(1, …\)"):
        read_graph(Started(make).eval(), x)
    assert len(read_graph(Started(lambda _: torch.zeros(1, 3)).eval(), x).nodes) == 3
