"""Images as somebody has them at hand: the audit takes them as values."""

import pytest
import torch

import unmask
from unmask.data import load


@pytest.mark.parametrize(
    "given",
    [
        lambda x: x.clone().requires_grad_(),
        lambda x: x.clone().requires_grad_() * 1,
        pytest.param(lambda x: x.transpose(2, 3).contiguous().transpose(2, 3), marks=pytest.mark.slow),
        lambda x: torch.nn.Parameter(x.clone()),
    ],
    ids=["leaf with gradient", "inside a graph", "other strides", "parameter"],
)
def test_any_tensor_of_images_is_audited(given):
    data = load("digits", examples=8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    x = given(data.x)
    report = unmask.audit(network, x, network(data.x).argmax(1), norm="linf", epsilon=0.05, budget="quick")
    assert report.examples == 8
    assert not x.is_leaf or x.grad is None


def test_a_folder_with_a_report_is_not_written_over(tmp_path, capsys):
    from unmask.cli.main import main

    (tmp_path / "report.json").write_text("{}")
    assert main(["audit", "none.py:net", "--norm", "linf", "--epsilon", "0.1", "--out", str(tmp_path)]) == 2
    assert "already holds a report" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "{}"
