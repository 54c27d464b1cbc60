"""A network that answers from a cache with a coarse key gives one image the answer of another, by who asked first."""

import ast
import contextvars
import os
import pickle
import weakref
from collections import OrderedDict
from functools import lru_cache

import pytest
import torch
from torch import nn

from unmask.classifier import Classifier
from unmask.diagnostics import preflight
from unmask.randomness import Streams
from unmask.state import State
from unmask.threat import Linf

N = 24
X = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
STREAMS = Streams.seeded(0, torch.arange(N))


def of_the_mean(x):
    return round(float(x.mean()) * 16)


def of_a_pixel(x):
    return float((x.flatten()[5] * 4).round() / 4)  # with a dot, as the names of attributes have them


def of_a_small_picture(x):
    return tuple((nn.functional.adaptive_avg_pool2d(x[None], 2) * 4).round().flatten().tolist())


def of_rounded_values(x):
    return str((x[0, 0] * 4).round().tolist())


def of_a_cheap_layer(x):
    return int(x.reshape(4, 4).sum(0).argmax())


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)))

    def forward(self, x):
        return x.flatten(1) @ self.weight


class Caches(Plain):
    def __init__(self, key=of_the_mean, most=10**6):
        super().__init__()
        self.key, self.most, self.cache = key, most, OrderedDict()

    def forward(self, x):
        return torch.stack(
            [z + (self.kept(one, z) - z).detach() for one, z in zip(x, super().forward(x), strict=True)]
        )

    def kept(self, one, logits):
        key = self.key(one.detach())
        if key not in self.cache:
            self.cache[key] = logits.detach().clone()
            if len(self.cache) > self.most:
                self.cache.popitem(last=False)
        return self.cache.get(key, logits)


STORE = {}


class InTheFile(Caches):
    def kept(self, one, logits):
        return STORE.setdefault(self.key(one.detach()), logits.detach().clone())


class InABuffer(Caches):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.full((17, 3), torch.nan))

    def kept(self, one, logits):
        row = self.table[self.key(one.detach())]
        return row.copy_(logits.detach()) if row.isnan().any() else row.clone()


class UnderALibrarysName(Caches):
    def kept(self, one, logits):
        return (
            vars(pickle).setdefault("kept_by_a_test", {}).setdefault(self.key(one.detach()), logits.detach())
        )


class OnTorch(Caches):
    def kept(self, one, logits):
        store = getattr(torch, "kept_by_a_test", {})
        torch.kept_by_a_test = store
        return store.setdefault(self.key(one.detach()), logits.detach())


class InTheEnvironment(Caches):
    def kept(self, one, logits):
        text = os.environ.setdefault(f"KEPT_BY_A_TEST_{self.key(one.detach())}", repr(logits.tolist()))
        return torch.tensor(ast.literal_eval(text))


CURRENT = contextvars.ContextVar("kept by a test", default=())


class InTheContext(Caches):
    def kept(self, one, logits):
        key, store = self.key(one.detach()), dict(CURRENT.get())
        if key not in store:
            CURRENT.set((*CURRENT.get(), (key, logits.detach())))
        return store.get(key, logits.detach())


class InAGenerator(Caches):
    def __init__(self):
        super().__init__()

        def remembers():
            store, answer = {}, None
            while True:
                key, logits = yield answer
                answer = store.setdefault(key, logits)

        self.memory = remembers()
        next(self.memory)

    def kept(self, one, logits):
        return self.memory.send((self.key(one.detach()), logits.detach()))


class ByAWeakReference(Caches):
    def __init__(self):
        super().__init__()
        self.memory = weakref.WeakKeyDictionary()

    def kept(self, one, logits):
        return self.memory.setdefault(self, {}).setdefault(self.key(one.detach()), logits.detach())


class Wrapped(Caches):
    def __init__(self, most=None):
        super().__init__()
        self.answer = lru_cache(maxsize=most)(self._answer)

    def _answer(self, key):
        return self.now

    def kept(self, one, logits):
        self.now = logits.detach().clone()
        return self.answer(self.key(one.detach()))


class WrappedInTheClass(Wrapped):
    def __init__(self):
        super().__init__()
        del self.answer

    @lru_cache(maxsize=8)
    def answer(self, key):
        return self.now


NETWORKS = {
    "by mean": (Caches, "cache"),
    "by a pixel": (lambda: Caches(of_a_pixel), "cache"),
    "by a small picture": (lambda: Caches(of_a_small_picture), "cache"),
    "by rounded values": (lambda: Caches(of_rounded_values), "cache"),
    "by a cheap layer": (lambda: Caches(of_a_cheap_layer), "cache"),
    "of four": (lambda: Caches(most=4), "cache"),
    "in the file": (InTheFile, "STORE"),
    "in a buffer": (InABuffer, "table"),
    "under a library's name": (UnderALibrarysName, "pickle.kept_by_a_test"),
    "on torch": (OnTorch, "torch.kept_by_a_test"),
    "in the environment": (InTheEnvironment, None),
    "in the context": (InTheContext, "CURRENT"),
    "in a generator": (InAGenerator, "memory.store"),
    "by a weak reference": (ByAWeakReference, "memory.data"),
    "lru_cache": (Wrapped, "answer"),
    "lru_cache of four": (lambda: Wrapped(4), "answer"),
    "lru_cache in the class": (WrappedInTheClass, "answer"),
}


def fly(network):
    y = Plain()(X).argmax(1)
    return preflight(Classifier(network), X, y, claim=0.9, threat=Linf(epsilon=0.1), generator=STREAMS)


@pytest.mark.parametrize(("build", "name"), NETWORKS.values(), ids=NETWORKS)
def test_it_is_judged_alone_as_a_network_that_nobody_has_asked(build, name):
    STORE.clear()
    network = build()
    held = State(network)
    facts = fly(network)
    assert name in facts.state or (name is None and all("KEPT_BY_A_TEST" in n for n in facts.state))
    assert facts.batch_dependent
    assert facts.deterministic
    # Alone and with nothing kept, it is the network behind its cache.
    assert facts.clean_accuracy == 1
    judged = Classifier(network, deterministic=True, alone=True, state=held.only(facts.state))
    for x in (X, X.flip(0)):
        torch.testing.assert_close(judged.predict(x, generator=STREAMS).logits, Plain()(x).detach())


def of_the_image(x):
    return x.numpy().tobytes()


@pytest.mark.parametrize("build", [lambda: Caches(of_the_image), lambda: Caches(of_the_image, 4)])
def test_a_cache_of_each_image_hides_nothing(build):
    facts = fly(build())
    assert facts.state == ()
    assert not facts.batch_dependent


def test_what_a_wrapped_function_held_before_stays():
    network = Wrapped()
    network(X[:1])
    state = State(network)
    network(X)
    assert "answer" not in state.changes()
    state.restore()
    assert network.answer.cache_info().currsize > 1


def test_a_computed_key_goes_by_the_name_of_its_dictionary():
    network = Caches(of_a_pixel)
    state = State(network)
    network(X)
    assert state.changes() == ("cache",)
    state.only(["cache"]).restore()
    assert not network.cache
