"""A network that a new interpreter builds answers as it does here, where it is the same one and can be asked."""

import os
import time

import numpy as np
import pytest
import torch

from unmask.classifier import seeded
from unmask.data.box import Box
from unmask.diagnostics import plain_process, rebuilt
from unmask.diagnostics.rebuilt import Rebuilt
from unmask.errors import ModelFailed
from unmask.sources.preprocessing import Preprocessed, Preprocessing
from unmask.target.target import load_target
from unmask.types import Outputs

X = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
FILE = """
import os, sys, time
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.calls = nn.Linear(16, 3), 0
    def forward(self, x):
        print("hello")
        return self.linear(x.flatten(1))

class Draws(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(3)

class Counts(Net):
    def forward(self, x):
        self.calls += 1
        return super().forward(x) + self.calls

class Scores(Net):
    def forward(self, x):
        return {"logits": super().forward(x), "detector_score": x.flatten(1).sum(1), "of": self}

class Arrays(Net):
    def forward(self, x):
        return super().forward(x).detach().double().numpy()

class Raises(Net):
    def forward(self, x):
        raise ValueError(x.shape)

class Leaves(Net):
    def forward(self, x):
        os._exit(0)

class Sleeps(Net):
    def forward(self, x):
        time.sleep(60)

class Bare(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3] * 5

class Other(Net):
    def __init__(self):
        super().__init__()
        nn.init.normal_(self.linear.bias, generator=torch.Generator().manual_seed(time.time_ns() % 2**60))

made = Net()
"""


@pytest.fixture
def anew(tmp_path):
    file, made = tmp_path / "own_network.py", []
    file.write_text(FILE)

    def make(name, box=None):
        spec = f"{file}:{name}"
        network = load_target(spec).network
        network = network if box is None else box.before(network)
        found = Rebuilt.of(spec, network, torch.device("cpu"))
        made.append(found)
        return network, found

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("name", ["Net", "made", "Draws", "Scores", "Arrays"])
def test_it_answers_as_here(anew, name):
    network, twin = anew(name)
    with seeded(7, torch.device("cpu")):
        here = Outputs.of(network(X))
        torch.manual_seed(7)
        there = twin(X)
    torch.testing.assert_close(there.logits, here.logits.detach())
    if name == "Scores":
        assert torch.equal(there.detector_score, here.detector_score)
    else:
        assert there.detector_score is None


@pytest.mark.parametrize("name", ["Net", "Bare"])
def test_it_is_asked_in_the_units_of_the_box(anew, name):
    network, twin = anew(name, box=Box(torch.full((1, 4, 4), -3.0), torch.linspace(-2, 9, 16).view(1, 4, 4)))
    torch.testing.assert_close(twin(X).logits, network(X).detach())


def test_what_options_preprocess_is_not_asked(anew):
    network, twin = anew("Bare")
    steps = Preprocessed(network, Preprocessing(mean=(0.5,)))
    assert Rebuilt.of(f"{twin._place}:Bare", steps, torch.device("cpu")) is None


def test_it_has_answered_nobody_before(anew):
    _, twin = anew("Counts")
    assert torch.equal(twin(X).logits, twin(X).logits)


def test_nothing_is_started_before_the_first_question_nor_left_afterwards(anew):
    _, twin = anew("Net")
    assert twin._process is None
    twin(X)
    process = twin._process
    twin.close()
    assert process.poll() is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Raises", "that process ended"),
        ("Leaves", "that process ended"),
        ("Sleeps", "it gave no answer in time|that process ended"),
        ("Other", "other weights were built"),
    ],
)
def test_who_cannot_be_asked_there_is_not(anew, name, why, monkeypatch):
    monkeypatch.setattr(rebuilt, "PATIENCE", 2)
    _, twin = anew(name)
    began = time.monotonic()
    for _ in range(2):  # the second time without another process
        with pytest.raises(ModelFailed, match=f"process of its own: ({why})"):
            twin(X)
        assert twin._process is None
    assert time.monotonic() - began < 60


def test_who_needs_long_in_all_is_asked_no_more(anew, monkeypatch):
    monkeypatch.setattr(rebuilt, "IN_ALL", 0.01)
    _, twin = anew("Sleeps")
    for _ in range(2):
        with pytest.raises(ModelFailed, match="process of its own"):
            twin(X)
    assert twin._process is None


def test_it_says_why_it_is_not_asked(anew):
    network, twin = anew("Bare")
    steps = Preprocessed(network, Preprocessing(mean=(0.5,)))
    assert "options stand in front" in Rebuilt.unable(f"{twin._place}:Bare", steps)
    assert "no torch module" in Rebuilt.unable(f"{twin._place}:Bare", lambda x: x)
    assert "no Python callable" in Rebuilt.unable("hf:some/net", network)
    assert Rebuilt.unable(f"{twin._place}:Bare", network) == ""


@pytest.mark.parametrize(
    "spec",
    [
        "Net",
        "hf:some/net",
        "net.pt2",
        "net.py:f + jpeg(quality=75)",
        "net.py:f(mean=0.5)",
        "w.pth(arch='n.py:N')",
    ],
)
def test_what_no_callable_of_python_builds_is_not_started(spec):
    assert Rebuilt.of(spec, torch.nn.Flatten(), torch.device("cpu")) is None


def test_a_network_is_known_by_names_and_values():
    def net(bias):
        net = torch.nn.Linear(2, 2)
        torch.nn.init.ones_(net.weight)
        torch.nn.init.constant_(net.bias, bias)
        return net

    assert plain_process.digest(net(1)) == plain_process.digest(net(1))
    assert plain_process.digest(net(1)) != plain_process.digest(net(2))
    assert plain_process.digest(net(1)) != plain_process.digest(torch.nn.Sequential(net(1)))


def test_what_is_returned_is_read_without_its_classes():
    class Holder:
        logits, other = np.ones((1, 2)), object()

    found = plain_process.readable(Holder())
    assert torch.equal(found["logits"], torch.ones(1, 2))
    assert plain_process.readable(Outputs(torch.ones(1, 2)))["detector_score"] is None
