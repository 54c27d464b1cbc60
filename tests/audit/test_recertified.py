"""`unmask verify` proves a certified accuracy again, or says why it did not."""

import copy
import json
from types import SimpleNamespace

import pytest
import torch
from tests.audit.small_audit import small_audit, write_audit, write_target
from tests.fixtures.digits_networks import trained

from unmask.audit.verify import verify
from unmask.audit.verifying import recertified as room
from unmask.audit.verifying.recertified import NAME, recertified
from unmask.bounds import certify
from unmask.classifier import Classifier
from unmask.cli.main import main
from unmask.data import load
from unmask.target.load import build
from unmask.threat import threat_model

DATA = load("digits", examples=24)
MLP = trained("plain_mlp")
RIGHT = MLP(DATA.x).argmax(1) == DATA.y


def stated(certified, *, norm="linf", epsilon=0.02, goal="untargeted", **more):
    """A report, as far as it is read here."""
    fields = {"stochastic": False, "passes": 1, "environment": SimpleNamespace(state=[])} | more
    threat = SimpleNamespace(norm=norm, epsilon=epsilon, goal=goal, radii=None)
    return SimpleNamespace(certified_accuracy=certified, threat=threat, examples=len(DATA), **fields)


def again(report, *, broken=~RIGHT, aim=DATA.y, network=MLP, built=None):
    evidence = SimpleNamespace(index=DATA.index[broken])
    return recertified(report, evidence, DATA, aim, network if built is None else built, network, "cpu")


@pytest.mark.parametrize(
    ("norm", "epsilon", "goal"),
    [
        ("linf", 0.02, "untargeted"),
        ("l2", 0.15, "untargeted"),
        ("l1", 0.5, "untargeted"),
        ("linf", 0.12, "targeted"),
    ],
)
def test_what_is_proved_is_what_the_audit_would_prove(norm, epsilon, goal):
    aim = DATA.y if goal == "untargeted" else (DATA.y + 1) % 10
    open_ = RIGHT if goal == "untargeted" else torch.ones_like(RIGHT)
    threat = threat_model(norm, epsilon, goal=goal)
    proved = certify(MLP, DATA.x[open_], aim[open_], threat).certified
    share = float(proved.sum()) / len(DATA)
    assert 0.1 < share < 0.95  # or the four norms could not be told apart
    report = {"norm": norm, "epsilon": epsilon, "goal": goal}
    found = again(stated(share, **report), broken=~open_, aim=aim)
    assert found.check.holds
    assert f"proved again for {int(proved.sum())} of {len(DATA)}" in found.check.found
    assert not again(stated(share + 1 / len(DATA), **report), broken=~open_, aim=aim).check.holds
    assert again(stated(share - 1 / len(DATA), **report), broken=~open_, aim=aim).check.holds


def test_what_the_evidence_breaks_is_not_proved():
    threat = threat_model("linf", 0.02)
    proved = certify(MLP, DATA.x, DATA.y, threat).certified & RIGHT
    broken = ~RIGHT
    broken[proved.nonzero()[0]] = True
    assert not again(stated(float(proved.sum()) / len(DATA)), broken=broken).check.holds
    everything = torch.ones_like(broken)
    assert not again(stated(0.1), broken=everything).check.holds
    assert again(stated(0.0), broken=everything).check.holds


def test_nothing_is_looked_at_where_nothing_is_stated():
    found = again(stated(None))
    assert found.check is None
    assert found.why_not == ""


class Leaves(torch.nn.Module):
    """An operation that no bound knows."""

    def __init__(self):
        super().__init__()
        self.inner = copy.deepcopy(MLP)

    def forward(self, x):
        return self.inner(x.cumsum(3))


class Raises(torch.nn.Module):
    """Cannot be asked but with numbers."""

    def forward(self, x):
        if type(x) is not torch.Tensor or x.dtype != torch.float32:
            raise KeyError("no numbers")
        return MLP(x)


@pytest.mark.parametrize(
    ("report", "options", "why"),
    [
        ({"stochastic": True}, {}, "random"),
        ({"passes": 5}, {}, "random"),
        ({"environment": SimpleNamespace(state=["calls"])}, {}, "state"),
        ({"norm": "l0", "epsilon": 2.0}, {}, "l0"),
        ({}, {"network": MLP.forward}, "no torch module"),
        ({}, {"network": Leaves()}, "cumsum"),
        ({}, {"network": Raises()}, ""),
        ({}, {"built": Classifier(MLP, certificate=lambda *_, **__: None)}, "own certificate"),
    ],
)
def test_why_it_was_not_proved_again_is_said(report, options, why):
    found = again(stated(0.5, **report), **options)
    assert found.check is None
    assert found.why_not
    assert why in found.why_not


def test_a_budget_that_ends_too_soon_accuses_nobody(monkeypatch):
    monkeypatch.setattr(room, "BUDGET", 0)
    found = again(stated(0.5, epsilon=0.04))
    assert found.check is None
    assert "budget" in found.why_not
    assert again(stated(0.0, epsilon=0.04)).check.holds  # so much intervals prove


def certified_in(folder, share):
    path = folder / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"certified_accuracy": share}))


def test_verify_says_what_of_it_it_proved(tmp_path):
    """Bounds of a linear network are exact: all that the best attack leaves is proved."""
    spec = f"{write_target(tmp_path)}:linear"
    report = small_audit(tmp_path / "out", spec)
    certified_in(tmp_path / "out", report.robust_accuracy)
    outcome = verify(tmp_path / "out")
    assert outcome.holds, outcome.checks
    assert "proved again for" in next(c.found for c in outcome.checks if c.name == NAME)
    assert "certified_accuracy" not in outcome.unchecked
    assert outcome.certificate == ""


def test_a_certificate_that_is_none_is_noticed(tmp_path):
    spec = f"{write_target(tmp_path)}:linear"
    network, _ = build(spec)
    right = int((network(DATA.x).argmax(1) != DATA.y).nonzero()[0, 0])
    data = load("digits", examples=right)
    write_audit(tmp_path / "out", spec, data, data.x, torch.zeros(len(data)), network, clean=1.0, claim=0.1)
    certified_in(tmp_path / "out", 1.0)
    assert NAME in {c.name for c in verify(tmp_path / "out").checks if not c.holds}


def test_what_is_taken_at_its_word_is_said_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(room, "DUALS", {})
    report = small_audit(tmp_path / "out", f"{write_target(tmp_path)}:linear")
    certified_in(tmp_path / "out", report.robust_accuracy)
    outcome = verify(tmp_path / "out")
    assert "certified_accuracy" in outcome.unchecked
    main(["verify", str(tmp_path / "out"), "--quiet"])
    said = " ".join(capsys.readouterr().out.split())
    assert "environment, certified_accuracy." in said
    assert "was not proved again: no bounds are known for linf" in said
