"""Vectors, signals and volumes from end to end: a known optimum, a masked line, evidence that a stranger checks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import unmask
from unmask.audit.run import audit
from unmask.audit.verify import verify
from unmask.claim.claim import Claim
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.report.html import render
from unmask.target.target import load_target

NETS = """\
import torch
from torch import nn

SCALE = torch.tensor([1.0, 10.0, 1000.0, 0.01])


class Linear(nn.Module):
    "Its decision: the mean of four features, each in units of its own size."

    def forward(self, x):
        z = (x / SCALE).mean(1)
        return torch.stack([-z, z], 1)


class Rounded(Linear):
    def forward(self, x):
        return super().forward(torch.round(x / SCALE * 50) / 50 * SCALE)


def linear():
    return Linear().eval()


def rounded():
    return Rounded().eval()
"""


def vectors() -> tuple[Tensor, Tensor]:
    """Features of four sizes in [-size, size]; the first two rows are the corners, so the box is known."""
    x = torch.rand(32, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x[0], x[1] = -1, 1
    return x * torch.tensor([1.0, 10.0, 1000.0, 0.01]), (x.mean(1) > 0).long()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    (folder / "nets.py").write_text(NETS)
    x, y = vectors()
    np.savez(folder / "v.npz", x=x.numpy(), y=y.numpy())
    return folder


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.1), ("l2", 0.2), ("l1", 0.3)])
def test_a_linear_network_of_vectors_is_broken_exactly_where_it_can_be(folder, norm, epsilon):
    data = load(folder / "v.npz")
    report = audit(
        load_target(f"{folder}/nets.py:linear"),
        data,
        Claim(norm=norm, epsilon=epsilon, budget="quick"),
        out=folder / norm,
    )
    # In units of the box the decision is the mean of 2 u - 1; the room to the walls is ample near it.
    z = (2 * data.x.double() - 1).mean(1).abs()
    reach = {"linf": 2 * epsilon, "l2": epsilon, "l1": epsilon / 2}[norm]
    assert report.robust_accuracy == pytest.approx(float((z > reach).double().mean()), abs=0.032)
    assert not report.masking
    assert [c.name for c in report.controls if c.role == "open"] == []
    found = verify(folder / norm)
    assert found.holds, [check for check in found.checks if not check.holds]


def test_a_masked_line_in_a_network_of_vectors_is_named(folder):
    x, y = vectors()
    space: dict = {}
    exec(compile(NETS, str(folder / "nets.py"), "exec"), space)
    report = unmask.audit(space["rounded"](), x, y, norm="linf", epsilon=0.1, budget="quick")
    assert [f.operation for f in report.masking] == ["torch.round"]
    assert report.robust_accuracy < report.naive_robust_accuracy


class Waves(nn.Module):
    "Whether a signal, or a volume, is more like one pattern than another."

    def __init__(self, like: Tensor):
        super().__init__()
        self.pattern = torch.linspace(-3, 3, like.numel()).sin()

    def forward(self, x):
        z = 3 * ((x - 4).flatten(1) @ self.pattern) / len(self.pattern)
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize(
    ("shape", "norm", "epsilon"),
    [((2, 30), "linf", 0.05), ((2, 30), "l1", 0.5), ((1, 3, 4, 5), "l2", 0.2)],
)
def test_signals_and_volumes(shape, norm, epsilon):
    x = 4 + torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))
    net = Waves(x[0]).eval()
    report = unmask.audit(net, x, net(x).argmax(1), norm=norm, epsilon=epsilon, budget="quick")
    assert report.clean_accuracy == 1
    assert report.robust_accuracy < 1
    assert [c.name for c in report.controls if c.role == "open"] == []
    assert "data:image/" in render(report)


def test_a_defence_of_ours_wants_the_unit_box(folder):
    with pytest.raises(UnusableInput, match="has a box of its own"):
        audit(
            load_target(f"{folder}/nets.py:linear + input_noise(sigma=0.1)"),
            load(folder / "v.npz"),
            Claim(norm="linf", epsilon=0.1),
        )


class Holder:
    model = torch.nn.Flatten()


@pytest.mark.parametrize(
    ("network", "told"),
    [
        ("net.py:network", "takes the network itself"),
        (torch.nn.Flatten, "Flatten\\(\\)"),
        (Holder(), "its `model`"),
        (None, "give a torch.nn.Module"),
    ],
    ids=["a name", "a class", "a record", "nothing"],
)
def test_what_is_no_network_is_one_line(network, told):
    with pytest.raises(unmask.UnmaskError, match=told):
        unmask.audit(network, torch.rand(4, 3), torch.zeros(4, dtype=torch.int64), norm="linf", epsilon=0.1)


def test_one_attack_needs_no_list():
    asked = []

    def shift(network, x, y, epsilon):
        asked.append(len(x))
        return x

    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    net = torch.nn.Linear(3, 2).eval()
    unmask.audit(net, x, net(x).argmax(1), norm="linf", epsilon=0.001, budget="quick", attacks=shift)
    assert asked
