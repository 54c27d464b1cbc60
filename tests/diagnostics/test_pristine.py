"""A process that was split off before the first call answers as a network does that nobody has asked."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from unmask.classifier import seeded
from unmask.diagnostics import pristine as room
from unmask.diagnostics.pristine import Pristine
from unmask.errors import ModelFailed
from unmask.types import Outputs

X = torch.rand(3, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def apart():
    made = []

    def make(network):
        made.append(Pristine(network))
        return made[-1]

    yield make
    for one in made:
        one.close()


class Remembers(nn.Module):
    """Adds up what it was asked, wherever `place` is."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def forward(self, x):
        self.place._asked = getattr(self.place, "_asked", 0) + x.sum()
        return x + self.place._asked


@pytest.mark.parametrize("place", [torch.backends, sys, nn.Parameter(torch.ones(2)), nn.Identity()], ids=str)
def test_what_it_was_told_before_is_not_known(apart, place, monkeypatch):
    monkeypatch.setattr(place, "_asked", 0, raising=False)
    network = Remembers(place)
    twin = apart(network)
    first = network(X)
    assert not torch.equal(network(X), first)
    assert torch.equal(twin(X), first)
    assert torch.equal(twin(X), first)
    assert torch.equal(twin(2 * X), 2 * X + (2 * X).sum())


def test_random_numbers_are_seeded_as_here(apart):
    twin = apart(lambda x: x + torch.rand_like(x))
    answers = []
    for seed in (1, 1, 2):
        with seeded(seed, X.device):
            answers.append((twin(X), X + torch.rand_like(X)))
    assert all(torch.equal(there, here) for there, here in answers)
    assert not torch.equal(answers[0][0], answers[2][0])


def test_logits_are_read_as_everywhere(apart):
    assert torch.equal(apart(lambda x: Outputs(x * 2, x.sum(1)))(X), X * 2)
    assert torch.equal(apart(lambda x: {"logits": x})(X), X)


def leaves(x):
    os._exit(0)


def crashes(x):
    os.kill(os.getpid(), signal.SIGSEGV)


def raises(x):
    raise SystemExit(0)


@pytest.mark.parametrize("network", [leaves, crashes, raises, lambda x: None])
def test_who_does_not_answer_fails_and_the_next_is_asked(apart, network):
    twin = apart(lambda x: x if float(x.sum()) > 0 else network(x))
    with pytest.raises(ModelFailed):
        twin(-X)
    assert torch.equal(twin(X), X)


def test_who_takes_too_long_is_given_up(apart, monkeypatch):
    monkeypatch.setattr(room, "IN_ALL", 0.5)
    twin = apart(lambda x: time.sleep(1000))
    with pytest.raises(ModelFailed, match="in time"):
        twin(X)
    with pytest.raises(ModelFailed, match="has ended"):
        twin(X)


def test_it_goes_with_the_process_that_made_it(tmp_path):
    code = (
        "import os, torch; from unmask.diagnostics.pristine import Pristine; p = Pristine(lambda x: x); "
        "p(torch.ones(1)); print(p._process, flush=True); os.kill(os.getpid(), 9)"
    )
    child = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    for _ in range(200):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("it outlives its maker")


def test_there_is_none_beside_a_gpu(monkeypatch):
    assert Pristine.of(nn.Identity(), torch.device("cuda")) is None
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert Pristine.of(nn.Identity(), torch.device("cpu")) is None


@pytest.mark.parametrize("ready", ["at once", "late", "never"])
def test_it_ends_although_it_has_only_just_begun(monkeypatch, ready):
    """An audit that is refused at once closes it before it leads a group of processes."""
    seconds = {"at once": 0, "late": 0.2, "never": 60}[ready]
    setsid = os.setsid
    monkeypatch.setattr(os, "setsid", lambda: (time.sleep(seconds), setsid()))
    began = time.monotonic()
    Pristine(nn.Flatten()).close()
    assert time.monotonic() - began < 30
