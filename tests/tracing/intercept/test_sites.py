"""Which line is named: the user's own first, and beside it the operation inside a library."""

import sys

import pytest
import torch
from tests.tracing.test_analyse import images

from unmask.audit.findings import describe
from unmask.classifier import Classifier
from unmask.report.html import place
from unmask.target.target import load_target
from unmask.threat import Linf
from unmask.tracing.analyse import analyse
from unmask.tracing.intercept import sites

LIBRARY = """
import torch
from torch import nn

def coarse(x, levels=4):
    scaled = x * levels
    return torch.round(scaled) / levels

def twice(x):
    return torch.floor(coarse(x) * 3) / 3

class Coarse(nn.Module):
    def forward(self, x):
        return torch.round(x * 4) / 4

class Built(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = Hard()
        self.last = nn.Linear(16, 4)
    def forward(self, x):
        return self.last(self.step(x.flatten(1)))

class Hard(nn.Module):
    def forward(self, x):
        return torch.sign(x - 0.5)

class Watched(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        inner.register_full_backward_hook(self.refuse)
    def forward(self, x):
        return self.inner(x.flatten(1))
    def refuse(self, module, grad_input, grad_output):
        raise ValueError("no activations")

def ready():
    torch.manual_seed(0)
    return Built()
"""

USER = """
import torch
from torch import nn
from somelib import Built, Coarse, Watched, coarse, ready, twice

class Called(nn.Module):
    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how, self.last = how, nn.Linear(16, 4)
    def forward(self, x):
        h = self.how(x.flatten(1))  # here it is called
        return self.last(h)

def function(): return Called(coarse)
def nested(): return Called(twice)
def module(): return Called(Coarse())
def layered(): return nn.Sequential(nn.Flatten(), Coarse(), nn.Linear(16, 4))  # built in a row
def whole():
    torch.manual_seed(0)
    return Built()  # built by the library
def made(): return ready()  # made by the library
def hooked(): return Watched(nn.Linear(16, 4))  # hooked by the library
"""


@pytest.fixture
def user(tmp_path, monkeypatch):
    library = tmp_path / "lib" / "site-packages" / "somelib"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text(LIBRARY)
    file = tmp_path / "mine.py"
    file.write_text(USER)
    monkeypatch.syspath_prepend(str(library.parent))
    monkeypatch.setattr(sites, "_homes", set())
    yield file
    sys.modules.pop("somelib", None)


def found(spec):
    network = load_target(spec).network
    x = images()
    with torch.no_grad():
        y = network(x).argmax(1)
    generator = torch.Generator().manual_seed(0)
    return analyse(Classifier(network), x, y, Linf(epsilon=0.2), seed=0, generator=generator).suspects


@pytest.mark.parametrize(
    ("name", "code", "inside"),
    [
        ("function", "# here it is called", {"return torch.round(scaled) / levels"}),
        (
            "nested",
            "# here it is called",
            {"return torch.round(scaled) / levels", "return torch.floor(coarse(x) * 3) / 3"},
        ),
        ("module", "# here it is called", {"return torch.round(x * 4) / 4"}),
        ("layered", "# built in a row", {"return torch.round(x * 4) / 4"}),
        ("whole", "# built by the library", {"return torch.sign(x - 0.5)"}),
        ("made", "# made by the library", {"return torch.sign(x - 0.5)"}),
        ("hooked", "# hooked by the library", {"def refuse(self, module, grad_input, grad_output):"}),
    ],
)
def test_the_users_line_and_the_librarys_operation(user, name, code, inside):
    suspects = found(f"{user}:{name}")
    assert {s.site.file for s in suspects} == {str(user)}
    assert all(code in s.site.code for s in suspects), [s.site.code for s in suspects]
    lines = {LIBRARY.splitlines()[s.site.inside[1] - 1].strip() for s in suspects}
    assert lines == inside
    for finding in describe(list(suspects), {}, "none"):
        assert finding.inside.startswith(suspects[0].site.inside[0])
        assert f"mine.py:{suspects[0].site.line}, inside somelib" in place(finding)


def test_operations_under_one_call_are_repaired_apart(user):
    groups = {s.group for s in found(f"{user}:nested")}
    assert len(groups) == 2


def test_a_target_in_a_package_is_its_users_own_code(user):
    suspects = found("somelib:ready")
    assert all("somelib" in s.site.file and s.site.inside is None for s in suspects)
    assert {s.site.code for s in suspects} == {"return torch.sign(x - 0.5)"}


def test_neither_torch_nor_this_package_is_a_library():
    assert not sites.is_library(torch.__file__)
    assert not sites.is_library(sites.__file__)
    assert sites.is_library("/x/site-packages/somelib/a.py")
    assert sites.is_library("/x/dist-packages/somelib.py")
    assert not sites.is_library("/home/me/model.py")
