"""Distances of the nearest known failures, against a plane whose distances are known."""

import pytest
import torch

import unmask
from unmask.audit.runtime.machine import hardware, utc


def test_distances_are_those_to_the_plane_along_the_attack_and_bound_the_accuracy():
    network = torch.nn.Linear(4, 2).eval()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]) / 2)
        network.bias.copy_(torch.tensor([-1.0, 1.0]))
    x = torch.full((12, 4), 0.5) + torch.linspace(0.01, 0.2, 12)[:, None]
    y = torch.zeros(12, dtype=torch.int64)
    y[0] = 1  # wrong without an attack
    report = unmask.audit(network, x, y, norm="linf", epsilon=0.1, budget="quick")
    table = report.table
    assert table is not None
    true = torch.linspace(0.01, 0.2, 12).tolist()
    assert table.distance[0] == table.standard[0] == 0.0
    for found, at in zip(table.distance[1:], true[1:], strict=True):
        if at > 0.1:
            assert found is None
        else:
            assert at - 1e-6 <= found <= 0.1 + 1e-9
            assert found == pytest.approx(at, rel=0.02)
    left = sum(d is None for d in table.distance) / 12
    assert left == pytest.approx(report.robust_accuracy)
    assert table.label == y.tolist()
    assert report.environment.date.endswith("UTC")
    assert report.environment.hardware


class OfSome(torch.nn.Module):
    """Has no answer to nothing, as whatever takes a largest value over its batch."""

    def forward(self, x):
        size = x.abs().max()
        return torch.stack([x.flatten(1).sum(1), x.flatten(1).sum(1) - 3 - 0 * size], 1)


def test_where_nothing_breaks_nothing_is_asked_of_an_empty_batch():
    x, y = torch.rand(6, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(6, dtype=torch.int64)
    report = unmask.audit(OfSome().eval(), x, y, norm="linf", epsilon=0.1, budget="quick")
    assert report.robust_accuracy == 1
    assert report.table is not None
    assert report.table.distance == [None] * 6
    assert not any("shape [0" in line for line in report.warnings)


def test_a_notebook_shows_a_report_escaped(tmp_path):
    from tests.report.sample import refuted

    report = refuted(tmp_path / "source.py")
    shown = report.model_copy(update={"masking": [report.masking[0].model_copy(update={"file": "<b>"})]})
    text = shown._repr_html_()
    assert "4.2% of 500" in text
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert len(repr(report)) < 1500
    assert "<caption>refuted</caption>" in text
    open_ = {"verdict": "not_refuted", "claim": None}
    assert "<caption>measured</caption>" in report.model_copy(update=open_)._repr_html_()
    assert (
        "<caption>not refuted</caption>" in report.model_copy(update={**open_, "claim": 0.01})._repr_html_()
    )


def test_dates_and_hardware_name_nobody():
    assert utc(0) == "1970-01-01 00:00 UTC"
    count = torch.get_num_threads()
    assert hardware(torch.device("cpu")).endswith(f"{count} thread{'s' * (count > 1)}")


def test_a_network_that_fails_between_found_points_and_the_image_keeps_its_verdict(monkeypatch):
    from unmask.audit import distances as module

    def refuses(*_):
        raise ValueError("not here")

    monkeypatch.setattr(module, "_drawn_back", refuses)
    network = torch.nn.Linear(4, 2).eval()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 1.0, 1.0, 1.0], [-1.0, -1.0, -1.0, -1.0]]) / 2)
        network.bias.copy_(torch.tensor([-1.0, 1.0]))
    x = torch.full((6, 4), 0.55)
    report = unmask.audit(
        network, x, torch.zeros(6, dtype=torch.int64), norm="linf", epsilon=0.1, budget="quick"
    )
    assert report.robust_accuracy == 0.0
    assert (report.table.distance, report.table.standard) == ([], [])
    assert any("distances of known failures: none" in warning for warning in report.warnings)
