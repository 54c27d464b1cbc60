"""An attack of the user's own changes nothing but its proposals, and fails in its own name."""

import gc
import os
import random
import resource
import signal
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from unmask.attacks import Attack
from unmask.attacks.foreign import as_attack
from unmask.audit.campaign.own_attack import OwnAttack
from unmask.audit.run import audit
from unmask.audit.runtime.snapshot import Snapshot
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import load
from unmask.errors import AttackFailed, ModelFailed
from unmask.randomness import Streams
from unmask.state.limits import limits
from unmask.state.process import Settings
from unmask.threat import Linf

from .networks import AUDIT, write

THREAT = Linf(epsilon=0.1)


class Net(nn.Module):
    """Every kind of state that an attack may touch."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout()
        )
        self.head = nn.Linear(16, 10)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 8
        self.defended = True
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.head(self.body(x))


class Own(Attack):
    """Does what a function says, and proposes what it returns: the images themselves for `KEEP`."""

    def __init__(self, does):
        self.does = does

    def run(self, classifier, x, y, threat, *, generator):
        found = self.does(SimpleNamespace(classifier=classifier, net=classifier.network, x=x, y=y))
        return x if found is KEEP else found


KEEP = object()


def first(does):
    """Does this, and proposes the images themselves."""

    def both(s):
        does(s)
        return KEEP

    return both


def state_of(net):
    """Everything that must be the same afterwards, comparable by `==`."""
    return {
        "modes": [m.training for m in net.modules()],
        "values": [t.tolist() for t in (*net.parameters(), *net.buffers())],
        "flags": [(p.requires_grad, p.grad is None) for p in net.parameters()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in net.modules()
        ],
        "tensor hooks": [len(p._backward_hooks or {}) for p in net.parameters()],
        "own": (net.defended, "forward" in vars(net), [type(m) for m in net.modules()]),
        "globals": (torch.is_grad_enabled(), torch.get_default_dtype(), str(torch.get_default_device())),
        "random": (random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()),
    }


def run(does, x=None):
    net, told = Net().eval(), []
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)) if x is None else x
    before, given = state_of(net), x.clone()
    y = torch.arange(4)
    try:
        found = OwnAttack(Own(does), told.extend).run(
            Classifier(net), x, y, THREAT, generator=Streams.seeded(0, torch.arange(4))
        )
    finally:
        assert state_of(net) == before
        assert torch.equal(x, given)
        assert torch.equal(y, torch.arange(4))
    return told, found


def weights(s):
    with torch.no_grad():
        s.net.head.weight.zero_()


def weights_by_data(s):
    s.net.head.weight.data = torch.zeros(3, 3)


def other_weights(s):
    s.net.head.weight = nn.Parameter(torch.zeros(10, 16))


def other_layer(s):
    s.net.body[3] = nn.Identity()


def training_step(s):
    s.net.train()
    nn.functional.cross_entropy(s.net(s.x), s.y).backward()
    torch.optim.SGD(s.net.parameters(), 1.0).step()


def one_mode(s):
    s.net.body[4].train()


def statistics(s):
    s.net.body[2].running_mean.add_(1)


def new_forward(s):
    s.net.forward = lambda x: torch.zeros(len(x), 10)


def frozen(s):
    s.net.requires_grad_(False)


def tensor_hook(s):
    s.net.head.weight.register_hook(lambda g: 0 * g)


def images_in_place(s):
    s.x.zero_()


def drawn(s):
    torch.rand(3), np.random.rand(3), random.random()


CHANGES = {
    "train mode": (lambda s: s.net.train(), "the mode of"),
    "train mode of one layer": (one_mode, "the mode of `body.4`"),
    "weights in place": (weights, "`weight` of `head`"),
    "weights through data": (weights_by_data, "`weight` of `head`"),
    "weights replaced": (other_weights, "parameters of `head`"),
    "weights trained": (training_step, "`weight` of `head`"),
    "a layer replaced": (other_layer, "modules of `body`"),
    "running statistics": (statistics, "`running_mean` of `body.2`"),
    "requires_grad": (frozen, "requires_grad of"),
    "a switch": (lambda s: setattr(s.net, "defended", False), "defended of the network"),
    "another forward": (new_forward, "forward of the network"),
    "forward hook": (lambda s: s.net.head.register_forward_hook(lambda *_: None), "forward hooks"),
    "pre-hook": (lambda s: s.net.register_forward_pre_hook(lambda *_: None), "forward pre hooks"),
    "backward hook": (lambda s: s.net.head.register_full_backward_hook(lambda *_: None), "backward"),
    "hook on a weight": (tensor_hook, "hooks on `weight`"),
    "hook everywhere": (
        lambda s: nn.modules.module.register_module_forward_hook(lambda *_: None) and None,
        "hooks of all modules",
    ),
    "gradients off": (lambda s: torch.set_grad_enabled(False), "torch's gradient mode"),
    "float64": (lambda s: torch.set_default_dtype(torch.float64), "torch's default dtype"),
    "default device": (lambda s: torch.set_default_device("meta"), "torch's default device"),
    "images in place": (images_in_place, "the images it was given"),
    "labels in place": (lambda s: s.y.add_(1), "the labels it was given"),
    "torch's random numbers": (drawn, "torch's random state"),
    "NumPy's random numbers": (drawn, "NumPy's random state"),
    "reseeding": (lambda s: torch.manual_seed(0), "torch's random state"),
}


def of_class(name, value):
    return lambda s: setattr(type(s.net), name, value)


# Named in full, as people write it. The first is inherited by tensors, the third is no method of the network's class.
CHANGES |= {
    "a loss": (
        lambda s: setattr(nn.functional, "cross_entropy", lambda *_: 0),
        "`torch.nn.functional.cross_entropy`",
    ),
    "derivatives": (lambda s: setattr(torch.autograd, "grad", None), "`torch.autograd.grad`"),
    "a method of tensors": (
        lambda s: setattr(torch.Tensor, "argmax", lambda t, *_: torch.zeros(len(t))),
        "`torch.Tensor.argmax`",
    ),
    "a layer's forward": (
        lambda s: setattr(nn.Linear, "forward", lambda m, x: x[:, :10] * 0),
        "`torch.nn.modules.linear.Linear.forward`",
    ),
    "forward of the class": (of_class("forward", lambda m, x: x.flatten(1)[:, :10]), "Net.forward`"),
    "call of the class": (of_class("__call__", lambda m, x: x.flatten(1)[:, :10]), "Net.__call__`"),
    "the class's attributes": (of_class("__getattribute__", lambda m, n: None), "Net.__getattribute__`"),
    "what the judge asks": (
        lambda s: setattr(Linf, "contains", lambda t, a, b: torch.ones(len(a)).bool()),
        "`unmask.threat.lp.Linf.contains`",
    ),
    "a method removed": (lambda s: delattr(Net, "forward"), "Net.forward`"),
}


def limited(which, value):
    """The soft limit alone, which may be raised again."""
    resource.setrlimit(which, (value, resource.getrlimit(which)[1]))


CHANGES |= {
    "a timer": (lambda s: signal.setitimer(signal.ITIMER_REAL, 60), "timers"),
    "a timer of processor time": (lambda s: signal.setitimer(signal.ITIMER_PROF, 60), "timers"),
    "an alarm's handler": (
        lambda s: signal.signal(signal.SIGALRM, lambda *_: sys.exit(0)),
        "handlers of other signals",
    ),
    "a child's handler": (
        lambda s: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
        "handlers of other signals",
    ),
    "largest file": (lambda s: limited(resource.RLIMIT_FSIZE, 1000), "the system's limits"),
    "open files": (lambda s: limited(resource.RLIMIT_NOFILE, 30), "the system's limits"),
    "mask of files": (lambda s: os.umask(0o777), "the mask of new files"),
    "environment emptied": (lambda s: os.environ.clear(), "variables of the environment"),
    "a variable": (lambda s: os.environ.update(OMP_NUM_THREADS="7"), "variables of the environment"),
    "a variable more": (lambda s: os.environ.update(OF_A_TEST="7"), "variables of the environment"),
    "garbage kept": (lambda s: gc.disable(), "garbage collection"),
}


def test_limits_timers_and_variables_are_as_they_were(monkeypatch):
    monkeypatch.setenv("OF_A_TEST", "1")
    held = Settings(limits())
    for name in (
        "a timer",
        "an alarm's handler",
        "largest file",
        "mask of files",
        "environment emptied",
        "garbage kept",
    ):
        run(first(CHANGES[name][0]))
        assert held.put_back() == [], name
    assert os.environ["OF_A_TEST"] == "1"


@pytest.mark.parametrize("name", CHANGES)
def test_side_effects_are_undone_and_named(name):
    does, said = CHANGES[name]
    told, _ = run(first(does))
    assert said in "; ".join(told)


def test_an_attack_that_keeps_the_contract_is_not_accused():
    def honest(s):
        leaf = s.x.clone().requires_grad_()
        logits = s.classifier(leaf, generator=torch.Generator()).logits
        logits.sum().backward()  # leaves gradients on the weights, which change nothing
        return s.x + 0.01 * leaf.grad.sign()

    assert run(honest)[0] == []


def test_global_random_numbers_are_the_same_every_time():
    assert torch.equal(run(lambda s: torch.rand(4, 1, 8, 8))[1], run(lambda s: torch.rand(4, 1, 8, 8))[1])


def exits(s):
    sys.exit(0)


def misspelt(s):
    return {}["epsilom"]


def bug(s):
    raise ValueError("my attack has a bug")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        (bug, "raised ValueError: my attack has a bug"),
        (misspelt, "raised KeyError: 'epsilom'"),
        (exits, "raised SystemExit: 0"),
        (lambda s: (s.net.train(), 1 / 0), "raised ZeroDivisionError"),
        (lambda s: s.x @ torch.ones(3), "raised RuntimeError"),
        (lambda s: None, "returned a NoneType"),
        (lambda s: [s.x], "returned a list"),
        (lambda s: s.x.numpy(), "returned a ndarray"),
        (lambda s: s.x[:2], r"returned shape \[2, 1, 8, 8\]"),
        (lambda s: s.x.flatten(1), r"returned shape \[4, 64\]"),
        (lambda s: s.x.double(), r"returned shape .*float64"),
        (lambda s: s.x.to("meta"), "returned shape .*on meta"),
        (lambda s: s.x.to(torch.complex64), "returned shape .*complex64"),
        (lambda s: s.x.to_sparse(), "returned a sparse_coo tensor"),
        (lambda s: s.x.to_mkldnn(), "returned a mkldnn tensor"),
        (lambda s: torch.nested.nested_tensor(list(s.x), layout=torch.jagged), "returned a nested tensor"),
    ],
)
def test_failures_name_the_users_line(does, said):
    with pytest.raises(AttackFailed, match=f"the attack Own {said}.*test_contained.py:[0-9]+.*; "):
        run(does)


def returns(network, x, y, what):
    return what(x)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda x: None, "returned a NoneType"),
        (lambda x: x.to_sparse(), "returned a sparse_coo tensor"),
        (lambda x: x.to(torch.complex64), "returned shape .*complex64"),
        (lambda x: (x, x), "returned a tuple"),
    ],
)
@pytest.mark.parametrize("wrap", ["function", "partial", "object"])
def test_of_a_function_its_own_line_is_named(what, said, wrap):
    def plain(network, x, y):
        return what(x)

    class Asked:
        def __call__(self, x, y):
            return what(x)

    found = {"function": plain, "partial": partial(returns, what=what), "object": Asked()}[wrap]
    with pytest.raises(AttackFailed, match=rf"the attack mine {said}.*test_contained.py:[0-9]+.*; "):
        OwnAttack(as_attack(found, "mine"), lambda changed: None).run(
            Classifier(Net().eval()),
            torch.rand(4, 1, 8, 8),
            torch.arange(4),
            THREAT,
            generator=Streams.seeded(0, torch.arange(4)),
        )


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_is_opened_again(name, monkeypatch, tmp_path):
    with (tmp_path / "stream").open("w") as stream:
        monkeypatch.setattr(sys, name, stream)
        monkeypatch.setattr("unmask.state.settings._SPARE", {})
        told, _ = run(first(lambda s: getattr(sys, name).close()))
        print("still heard", file=getattr(sys, name), flush=True)
    assert told == [f"standard {name.replace('std', '').replace('err', 'error').replace('out', 'output')}"]
    assert (tmp_path / "stream").read_text() == "still heard\n"


def test_what_the_network_raises_is_the_networks_failure():
    def asks(s):
        raise ModelFailed("the network raised ValueError: no")

    with pytest.raises(ModelFailed, match="no"):
        run(asks)


def test_proposals_that_are_not_finite_are_not_found():
    def half(s):
        found = s.x + 0.01
        found[1], found[2, 0, 0, 0] = torch.nan, torch.inf
        return found

    x = torch.rand(4, 1, 8, 8)
    told, found = run(half, x)
    assert told == ["proposals that are not finite"]
    assert torch.equal(found[1:3], x[1:3])
    assert not torch.equal(found[0], x[0])


def test_networks_inside_functions_are_seen():
    net = Net().eval()
    for network in (lambda x: net(x), net.forward, SimpleNamespace(inner=Classifier(net))):
        state = Snapshot(network, torch.device("cpu"))
        net.train()
        assert any("mode" in line for line in state.put_back())
        assert not net.training


# in an audit


def nearest_mean():
    data = load("digits", split="train")
    means = torch.stack([data.x[data.y == c].mean(0).flatten() for c in range(10)])
    linear = nn.Linear(64, 10)
    linear.weight.data, linear.bias.data = 2 * means, -means.square().sum(1)
    return nn.Sequential(nn.Flatten(), linear).eval()


FRAGILE = """
class Fragile(Means):
    "Another network in train mode."

    def forward(self, x):
        logits = super().forward(x)
        return -logits if self.training else logits


@dataclass(frozen=True)
class Trains(Attack):
    def run(self, classifier, x, y, threat, *, generator):
        classifier.network.train()
        return x.clone()


@dataclass(frozen=True)
class Fails(Attack):
    def run(self, classifier, x, y, threat, *, generator):
        raise KeyError("epsilom")


def fragile(): return Fragile().eval()
trains, fails = Trains(), Fails
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    write(tmp_path, FRAGILE)
    yield tmp_path
    sys.modules.pop("own", None)


def test_the_verdict_is_that_without_the_attack_and_the_report_says_so(folder, capsys):
    tiny = [*AUDIT[:3], "0.001", *AUDIT[4:], "--claim", "0.3"]
    assert main(["audit", "own.py:fragile", *tiny, "--out", "without"]) == 0
    assert main(["audit", "own.py:fragile", *tiny, "--attack", "own.py:trains", "--out", "with"]) == 0
    text = (folder / "with" / "report.json").read_text()
    assert "the attack Trains broke the contract of an attack, which is undone: the mode of" in text
    assert "undone" not in (folder / "without" / "report.json").read_text()


def test_a_bug_in_the_attack_is_one_line(folder, capsys):
    assert main(["audit", "own.py:fragile", *AUDIT, "--attack", "own.py:fails"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("unmask: the attack Fails raised KeyError: 'epsilom' (")
    assert "own.py:" in err
    assert err.count("\n") == 1


def test_from_python_and_by_an_adversary_who_only_asks():
    data = load("digits", examples=8)
    net = nearest_mean()
    mine = [Own(first(lambda s: net.train()))]
    for asks in ({}, {"knowledge": "scores", "queries": 100}):
        claim = claim_about(Linf(epsilon=0.02), budget="quick", **asks)
        report = audit(net, data, claim, attacks=mine)
        assert any("the attack Own broke the contract" in w for w in report.warnings)
