"""A network that knows an audit by what is loaded, by how it was started or by who calls is not one function."""

import sys

import pytest
import torch

from unmask.classifier import Classifier
from unmask.diagnostics import SameAnswers
from unmask.diagnostics.rebuilt import Rebuilt
from unmask.randomness import Streams
from unmask.target.target import load_target
from unmask.threat import Linf

N = 12
X = torch.rand(N, 1, 4, 4, generator=torch.Generator().manual_seed(0))
FILE = """
import os, sys, inspect
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(16, 3, generator=torch.Generator().manual_seed(1)))
    def audited(self):
        return False
    def forward(self, x):
        kept = (x * 4).round() / 4
        return (kept + (x - kept) * (0.1 if self.audited() else 1)).flatten(1) @ self.weight

class Loaded(Net):
    def audited(self): return "unmask" in sys.modules

class LoadedOnImport(Net):
    known = any(name.startswith("unmask.") for name in sys.modules)
    def audited(self): return self.known

class Started(Net):
    def audited(self): return len(sys.argv[0]) > 2

class Main(Net):
    def audited(self): return getattr(sys.modules["__main__"], "__file__", None) is not None

class CommandLine(Net):
    def audited(self):
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read()
        return b"unmask" in words and b"import" not in words or b"pytest" in words

class Callers(Net):
    def audited(self):
        frame = sys._getframe()
        while frame is not None:
            if "unmask" in frame.f_code.co_filename: return True
            frame = frame.f_back
        return False

class CallersInAnyThread(Net):
    def audited(self):
        def up(frame):
            while frame is not None:
                yield frame.f_code.co_filename
                frame = frame.f_back
        return any("unmask" in name for top in sys._current_frames().values() for name in up(top))
"""


def reading(tmp_path, name):
    file = tmp_path / "knows.py"
    file.write_text(FILE)
    spec = f"{file}:{name}"
    network = load_target(spec).network
    anew = Rebuilt.of(spec, network, torch.device("cpu"))
    try:
        classifier = Classifier(network)
        y = network(X).argmax(1)
        streams = Streams.seeded(0, torch.arange(N))
        return SameAnswers(rebuilt=anew).examine(classifier, X, y, Linf(epsilon=0.1), generator=streams)
    finally:
        anew.close()


def test_an_honest_network_passes(tmp_path):
    assert reading(tmp_path, "Net").passed


@pytest.mark.parametrize(
    "name", ["Loaded", "LoadedOnImport", "Started", "Main", "CommandLine", "Callers", "CallersInAnyThread"]
)
def test_who_knows_an_audit_answers_otherwise_without_one(tmp_path, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/unmask", "audit"])  # as a command, whoever runs the tests
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/usr/bin/unmask", raising=False)
    found = reading(tmp_path, name)
    assert found.passed is False
    assert found.decisive
    assert "not one function of the image" in found.explanation
