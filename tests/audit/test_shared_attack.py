"""The controls' attack runs once in the claimed ball, and wherever else it is asked."""

from dataclasses import dataclass, field, replace

import torch
from tests.fixtures.digits_networks import trained

from unmask.attacks import PGD, Attack
from unmask.audit.controls.known import Done
from unmask.audit.controls.shared import ATTACK
from unmask.audit.run import audit
from unmask.audit.runtime.journal import Journal, read_settings
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.threat import L2, Linf


@dataclass(frozen=True, eq=False)
class Counted(Attack):
    """Leaves the images as they are, and counts."""

    runs: list = field(default_factory=list)

    def run(self, classifier, x, y, threat, *, generator):
        self.runs.append(len(x))
        return x.clone()


def test_what_was_found_is_handed_out_there_and_nowhere_else():
    network, threat = torch.nn.Flatten(), Linf(epsilon=0.1)
    x, y, streams = torch.rand(6, 1, 2, 2), torch.zeros(6, dtype=torch.int64), torch.Generator()
    points, attack = x + 0.05, Counted()
    done = Done(attack=attack, network=network, threat=threat, x=x, points=points)
    here = Classifier(network)
    again = done.run(here, x.clone(), y, threat, generator=streams)
    assert torch.equal(again, points)
    again.zero_()
    assert torch.equal(done.run(here, x[:4], y[:4], threat, generator=streams), points[:4])
    assert not attack.runs
    for asked in (
        (here, x[2:], y[2:], threat),
        (here, x.flip(0), y, threat),
        (here, x, y, replace(threat, epsilon=0.2)),
        (here, x, y, replace(threat, goal="targeted")),
        (here, x, y, L2(epsilon=0.1)),
        (Classifier(torch.nn.Flatten()), x, y, threat),
    ):
        before = len(attack.runs)
        done.run(*asked, generator=streams)
        assert len(attack.runs) == before + 1


def test_an_audit_runs_it_once_and_keeps_it(tmp_path, monkeypatch):
    runs = []
    plain = PGD.run

    def counted(self, classifier, x, y, threat, *, generator):
        runs.append((self.steps, self.rel_step_size, threat.epsilon, len(x)))
        return plain(self, classifier, x, y, threat, generator=generator)

    monkeypatch.setattr(PGD, "run", counted)
    claim = claim_about(Linf(epsilon=0.15), budget="quick")
    first = audit(trained("plain_cnn"), load("digits", examples=24), claim, out=tmp_path)
    assert runs.count((10, 0.25, 0.15, 16)) == 1
    journal = Journal(tmp_path / "journal", read_settings(tmp_path / "journal"), resume=True)
    entry = journal.get(f"control {ATTACK.name}")
    assert entry is not None
    assert entry.record["meter"]["backwards"] > 0
    journal.close()
    runs.clear()
    again = audit(trained("plain_cnn"), load("digits", examples=24), claim, out=tmp_path, resume=True)
    assert (10, 0.25, 0.15, 16) not in runs
    assert again.controls == first.controls
    assert ATTACK.name not in [c.name for c in first.controls]


def test_without_its_entry_a_resumed_audit_runs_it_again_with_the_same_result(tmp_path):
    claim = claim_about(Linf(epsilon=0.15), budget="quick")
    data = load("digits", examples=24)
    first = audit(trained("plain_cnn"), data, claim, out=tmp_path)
    journal = Journal(tmp_path / "journal", read_settings(tmp_path / "journal"), resume=True)
    for name in (ATTACK.name, "black box against white box", "random noise of the same size"):
        journal._path(f"control {name}").unlink()
    journal.close()
    again = audit(trained("plain_cnn"), data, claim, out=tmp_path, resume=True)
    assert again.controls == first.controls
    assert again.cost.forwards == first.cost.forwards
    assert again.robust_accuracy == first.robust_accuracy
