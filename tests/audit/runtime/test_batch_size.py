"""A batch that was halved stays halved, in a resumed audit too."""

import json

import pytest
import torch
from tests.faults.audits import without_clock
from tests.fixtures import HONEST
from torch import nn

from unmask.audit.run import audit
from unmask.audit.runtime.batch_size import BatchSize
from unmask.audit.runtime.journal import Journal
from unmask.audit.runtime.progress import Silent
from unmask.claim.claim import claim_about
from unmask.classifier import Meter
from unmask.data import load
from unmask.threat import Linf

DATA = load("digits", examples=24)


class Narrow(nn.Module):
    """Memory for `room` examples with a gradient and for twice as many without."""

    def __init__(self, room, log):
        super().__init__()
        self.inner = next(case for case in HONEST if case.name == "honest_plain").build()
        self.room, self.log = room, log  # a file, for what a network keeps in memory is put back by the audit

    @property
    def refused(self):
        return [int(size) for size in self.log.read_text().split()] if self.log.exists() else []

    def forward(self, x):
        if len(x) > self.room * (1 if x.requires_grad else 2):
            with self.log.open("a") as file:
                file.write(f"{len(x)} ")
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


class StopsAt(Silent):
    def __init__(self, stage):
        self.at = stage

    def stage(self, name):
        if name == self.at:
            raise KeyboardInterrupt


def test_a_resumed_audit_knows_how_much_fits(tmp_path):
    whole, cut, resumed = (Narrow(8, tmp_path / name) for name in ("one.log", "two.log", "three.log"))
    options = {"budget": "quick", "batch_size": 24}
    undisturbed = audit(whole, DATA, claim_about(Linf(epsilon=0.1), **options), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        audit(
            cut,
            DATA,
            claim_about(Linf(epsilon=0.1), **options),
            out=tmp_path / "cut",
            progress=StopsAt("final judgement"),
        )
    again = audit(resumed, DATA, claim_about(Linf(epsilon=0.1), **options), out=tmp_path / "cut", resume=True)
    assert whole.refused[:2] == cut.refused[:2] == [24, 12]  # without a gradient, and with one
    assert not {24, 12} & set(resumed.refused)
    assert undisturbed.environment.batch_size == 6
    assert any(attack.recipe.startswith("naive") for attack in undisturbed.attacks)  # no lost gradient
    again, undisturbed = (without_clock(json.loads(report.to_json())) for report in (again, undisturbed))
    assert again == undisturbed


def test_each_part_keeps_its_own_size(tmp_path):
    journal = Journal(tmp_path, {})
    first = BatchSize(256, "preflight", journal, Silent())
    meter = Meter()

    def needs(size):
        meter.forwards += 1
        if size > 30:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return size

    assert first.fitting(needs, 100, meter) == 25
    assert meter == Meter(1, 0, 0)  # failed tries are forgotten
    assert BatchSize(256, "preflight", journal, Silent()).size == 25
    assert BatchSize(256, "attacks", journal, Silent()).size == 256


def test_a_single_example_that_does_not_fit_ends_it():
    def never(size):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        BatchSize(8, "attacks", None, Silent()).fitting(never, 8, Meter())
