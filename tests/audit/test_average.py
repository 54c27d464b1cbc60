"""An audit told what a prediction is a mean of: preflight, settings, evidence, whoever checks it."""

import dataclasses
import json

import pytest
import torch
from tests.audit.small_audit import small_audit, write_target
from tests.classifier.test_averaging import probabilities, sure_or_doubtful

from unmask.audit.context import subject_of
from unmask.audit.evidence import read_evidence, write_evidence
from unmask.audit.prepare import look_over, looked_over
from unmask.audit.verify import verify
from unmask.audit.verifying.deployed import deployed
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import Data
from unmask.errors import UnusableInput
from unmask.state import State
from unmask.threat import Linf

GENERATOR = torch.Generator().manual_seed(0)
DATA = Data(torch.rand(24, 1, 2, 2, generator=GENERATOR), torch.arange(24) % 2, "two", "", torch.arange(24))
NETWORKS = {"logits": sure_or_doubtful, "probabilities": probabilities}


def subject(returned, **options):
    claim = claim_about(Linf(epsilon=0.1), passes=100, **options)
    return subject_of(NETWORKS[returned], DATA, claim)


@pytest.mark.parametrize("returned", NETWORKS)
@pytest.mark.parametrize("average", [None, "logits", "probabilities"])
def test_the_audit_judges_the_mean_that_verify_takes(returned, average):
    before = subject(returned, **({} if average is None else {"average": average}))
    facts, size = look_over(before, State(None))
    found = looked_over(before, facts, size, None)
    assert facts.probabilities == (returned == "probabilities")  # whatever is averaged
    assert found.classifier.average == (None if average in (None, returned) else average)
    assert facts.clean_accuracy == 0.5
    winner = {"logits": 0, "probabilities": 1}[average or returned]
    judged = found.classifier.predict(found.x, generator=found.streams("judge")).logits
    assert (judged.argmax(1) == winner).all()
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        ask = deployed(
            NETWORKS[returned], passes=100, average=found.classifier.average, batch_size=24, device="cpu"
        )
        checked, answered = ask(DATA.x)
    assert (checked.argmax(1) == winner).all()
    assert answered.all()


def test_another_mean_is_another_run():
    plain, moved = subject("logits"), subject("logits", average="probabilities")
    assert plain.settings({})["average"] is None
    assert moved.settings({})["average"] == "probabilities"
    own = Classifier(sure_or_doubtful, passes=3, average="probabilities")
    kept = subject_of(own, DATA, claim_about(Linf(epsilon=0.1)))
    assert kept.settings({})["average"] == "probabilities"
    with pytest.raises(UnusableInput, match="average"):
        subject("logits", average="votes")


def test_report_and_evidence_must_say_the_same_mean(tmp_path):
    small_audit(tmp_path / "out", f"{write_target(tmp_path)}:linear")
    evidence, file = read_evidence(tmp_path / "out"), tmp_path / "out" / "report.json"
    assert evidence.average is None
    file.write_text(json.dumps(json.loads(file.read_text()) | {"average": "probabilities"}))
    assert "one audit" in {check.name for check in verify(tmp_path / "out").checks if not check.holds}
    write_evidence(tmp_path / "out", dataclasses.replace(evidence, average="probabilities"))
    assert verify(tmp_path / "out").holds
    write_evidence(tmp_path / "out", dataclasses.replace(evidence, average="votes"))  # type: ignore[arg-type]
    with pytest.raises(UnusableInput, match="average is 'votes'"):
        read_evidence(tmp_path / "out")
