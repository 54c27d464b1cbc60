"""Equal images get equal answers: what tells an attack from a user fails, and what only looks like it does not."""

import itertools
import sys
import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from unmask.audit.controls.run import examine
from unmask.classifier import Classifier
from unmask.diagnostics import Reading, SameAnswers
from unmask.diagnostics.answers import Recorded
from unmask.diagnostics.comparison import points_around
from unmask.diagnostics.early import early
from unmask.errors import GradientFailed, ModelFailed, Unsupported
from unmask.randomness import Streams
from unmask.state import State
from unmask.threat import L0, L1, L2, Linf

THREAT = Linf(epsilon=0.1)
N = 12


def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(N, 1, 4, 4, generator=generator), torch.arange(N) % 3


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(16, 3, generator=generator))

    def forward(self, x):
        return x.flatten(1) @ self.weight


class Switches(Plain):
    """Answers coarsely where its test says so: near a grid on which clean images lie about as well."""

    def __init__(self, test):
        super().__init__()
        self.test = test

    def forward(self, x):
        return super().forward((x * 4).round() / 4 if self.test(x) else x)


def read(network, *, threat=THREAT, attack=None, seedable=True, between=None, anew=None, **fields):
    x, y = images()
    streams = Streams.seeded(0, torch.arange(N))
    state = State(network)
    classifier = Classifier(network, **fields)
    points = points_around(x, threat, (0.0, 1.0), streams)
    first = early(classifier, x, y, points, threat, streams)
    touched = state.changes()
    if between:
        between()
    more = {} if attack is None else {"attack": attack}
    check = SameAnswers(
        **(anew or {}),
        early=first.answers,
        seedable=seedable,
        untouched=state.only(touched) if touched else None,
        **more,
    )
    return check.examine(classifier, x, y, threat, generator=streams.fork("examine"))


def stack(*words):
    frame, found = sys._getframe(1), False
    while frame is not None and not found:
        found = any(word in frame.f_code.co_filename for word in words)
        frame = frame.f_back
    return found


NUMBERS = itertools.count()


class Hidden:
    """A counter where no state is looked for."""

    def __init__(self):
        self.name = f"hidden {next(NUMBERS)}"

    def __call__(self, x):
        sys.__dict__[self.name] = sys.__dict__.get(self.name, 0) + 1
        return sys.__dict__[self.name]


def remembers():
    """The answer to the nearest of the first images that it saw."""
    net, seen = Plain(), []

    def network(x):
        if sum(map(len, seen)) < 30:
            seen.append(x.detach().clone())
        pool = torch.cat(seen)
        near = torch.cdist(x.flatten(1), pool.flatten(1)).argmin(1)
        return net(pool[near]) + 0 * net(x)

    return network


def after_a_backward_pass():
    name = f"backward {time.monotonic_ns()}"

    class Counts(Switches):
        def forward(self, x):
            if x.requires_grad:
                x.register_hook(lambda grad: sys.__dict__.__setitem__(name, 1))
            return super().forward(x)

    return Counts(lambda x: sys.__dict__.get(name))


def counted(test):
    hidden = Hidden()
    return Switches(lambda x: test(hidden(x)))


def every_second():
    ticks = itertools.count()
    return Switches(lambda x: next(ticks) % 2)


def small_steps():
    last = []

    def test(x):
        near = bool(last) and last[0].shape == x.shape and 0 < float((last[0] - x).abs().max()) < 0.15
        last[:] = [x.detach().clone()]
        return near

    return Switches(test)


def per_thread():
    local = threading.local()

    def test(x):
        local.calls = getattr(local, "calls", 0) + 1
        return local.calls > 12

    return Switches(test)


OTHERWISE = {
    "after 3 calls": lambda: counted(lambda n: n > 3),
    "after 12 calls": lambda: counted(lambda n: n > 12),
    "for 12 calls": lambda: counted(lambda n: n <= 12),
    "every third call": lambda: counted(lambda n: n % 3 == 0),
    "every second call": every_second,
    "called by an attack": lambda: Switches(lambda x: stack("unmask/attacks", "unmask/gradients")),
    "called by the judge": lambda: Switches(lambda x: stack("unmask/judge")),
    "called by the audit": lambda: Switches(lambda x: stack("unmask/diagnostics")),
    "remembers": remembers,
    "after a backward pass": after_a_backward_pass,
    "small steps": small_steps,
    "calls of one thread": per_thread,
    "under autograd": lambda: Switches(lambda x: torch.is_grad_enabled()),
    "with a graph": lambda: Switches(lambda x: x.grad_fn is not None),
    "few at a time": lambda: Switches(lambda x: len(x) == 8),
}


@pytest.mark.parametrize("name", OTHERWISE)
def test_what_answers_an_attack_otherwise_fails(name):
    reading = read(OTHERWISE[name]())
    if name == "few at a time":  # the batch is the same again: preflight tells it
        assert reading.passed
        return
    assert reading.passed is False
    assert reading.decisive
    assert 0 < reading.value <= 1
    assert "not one function" in reading.explanation


def test_a_clock_fails():
    began = time.monotonic()
    reading = read(Switches(lambda x: time.monotonic() - began > 2), between=lambda: time.sleep(2.1))
    assert reading.passed is False
    assert "before the first attack" in reading.explanation


def own_noise(settles=False):
    """Randomness that nobody can seed; if it `settles`, only for some calls."""
    net, generator, hidden = Plain(), torch.Generator().manual_seed(2), Hidden()

    def network(x):
        noise = torch.randn(x.shape, generator=generator)
        return net(x + 0.05 * noise * (not settles or hidden(x) < 9))

    return network


class Noise(Plain):
    def forward(self, x):
        return super().forward(x + 0.1 * torch.randn_like(x))


class Rare(Plain):
    """Another answer once in 20 images."""

    def forward(self, x):
        return super().forward(x) * torch.where(torch.rand(len(x), 1) < 0.05, -1, 1)


class Whole(Plain):
    """Jumps wherever an element of the input is rounded."""

    def forward(self, x):
        return super().forward((x * 16).round() / 16)


class Cache(Plain):
    """An honest one: what was asked before is looked up."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def forward(self, x):
        key = x.detach().numpy().tobytes()
        if key not in self.kept:
            self.kept[key] = super().forward(x.detach()).detach()
        return self.kept[key].clone() + 0 * super().forward(x)


class Counter(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Numpy(Plain):
    def forward(self, x):
        return torch.from_numpy(x.detach().numpy().reshape(len(x), -1) @ self.weight.detach().numpy())


class NumpyNoise(Plain):
    def forward(self, x):
        return super().forward(x + torch.from_numpy(np.random.randn(*x.shape)).float() / 10)


class NoBackward(Plain):
    def forward(self, x):
        def stop(grad):
            raise ValueError("no backward pass")

        if x.requires_grad:
            x.register_hook(stop)
        return super().forward(x)


class OneThread(Plain):
    """Bound to the thread that made it, as a database is."""

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    def forward(self, x):
        if threading.get_ident() != self.thread:
            raise RuntimeError("another thread")
        return super().forward(x)


HONEST = {
    "plain": (Plain, {"deterministic": True}),
    "noise": (Noise, {}),
    "noise, several passes": (Noise, {"passes": 3}),
    "NumPy's noise": (NumpyNoise, {}),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), Plain()), {}),
    "rarely": (Rare, {}),
    "rounds": (Whole, {"deterministic": True}),
    "a cache": (Cache, {"deterministic": True}),
    "a counter": (Counter, {"deterministic": True}),
    "NumPy": (Numpy, {"deterministic": True}),
    "probabilities": (lambda: nn.Sequential(Plain(), nn.Softmax(1)), {"probabilities": True}),
    "alone": (Plain, {"alone": True}),
    "a function": (lambda: Plain().forward, {}),
    "16 bits": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).bfloat16().float(), {}),
    "no backward pass": (NoBackward, {}),
    "one thread": (OneThread, {}),
    "batch statistics": (lambda: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), Plain()), {}),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_hides_nothing_passes(name):
    make, fields = HONEST[name]
    reading = read(make(), **fields)
    assert reading.passed, reading.explanation
    assert reading.value == 0


def test_it_says_where_there_was_no_network_built_anew():
    def fails(x):
        raise ModelFailed("other weights were built")

    for found in (
        read(Plain(), anew={"rebuilt": fails}),
        read(Plain(), anew={"not_rebuilt": "other weights were built"}),
    ):
        assert found.passed
        assert found.explanation.endswith(
            "built anew in a process without an audit: other weights were built."
        )
    assert "built anew" not in read(Plain()).explanation


@pytest.mark.parametrize("threat", [L2(epsilon=0.5), L1(epsilon=2.0), L0(epsilon=3)])
def test_every_threat_model(threat):
    assert read(Plain(), threat=threat).passed
    assert read(OTHERWISE["after 12 calls"](), threat=threat).passed is False


@pytest.mark.parametrize("make", [own_noise, lambda: Rare()])
def test_randomness_that_cannot_be_seeded_is_compared_by_means(make):
    assert read(make(), seedable=False).passed


def test_randomness_that_settles_or_moves_fails():
    hidden = Hidden()

    class Moves(Noise):
        def forward(self, x):
            return super().forward(x) + 3 * (hidden(x) > 12)

    assert read(Moves(), seedable=False).passed is False


def test_what_is_recorded_is_what_was_asked():
    network = Recorded(Plain(), "now", at_most=2 * 16 * 4)
    x = torch.rand(1, 1, 4, 4)
    said = network(x)
    x.zero_()
    network(x)
    network(x)  # there is no room for a third
    assert len(network.answers) == 2
    assert torch.equal(network.answers[0].logits, said)
    assert float(network.answers[0].x.sum()) > 0


@pytest.mark.parametrize(
    ("error", "applies"),
    [
        (ValueError("a bug"), True),
        (KeyError("a"), True),
        (SystemExit(0), True),
        (GradientFailed("no"), False),
        (Unsupported("no"), False),
    ],
)
def test_a_control_that_raises_is_said(error, applies):
    class Raises(SameAnswers):
        def examine(self, *given, **more) -> Reading:
            raise error

    x, y = images()
    reading = examine(Raises(), Classifier(Plain()), x, y, THREAT, Streams.seeded(0, torch.arange(N)))
    if not applies:
        assert reading is None
        return
    assert reading.passed is False
    assert reading.decisive
    assert type(error).__name__ in reading.explanation
