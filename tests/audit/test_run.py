"""The audit from end to end, on digits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tests.fixtures import BROKEN, HONEST
from torch import nn

from unmask.attacks import PGD
from unmask.audit.records import Fact, MaskingFinding
from unmask.audit.run import audit
from unmask.audit.runtime.journal import Journal
from unmask.audit.verify import verify
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.errors import UnusableInput
from unmask.judge import judge
from unmask.randomness import Streams
from unmask.threat import Linf, threat_model
from unmask.tracing.intercept.construction import construction_sites

CASES = {case.name: case for case in (*BROKEN, *HONEST)}
# A few of every kind run in every test run; the whole zoo is slow.
QUICK = (
    "bit_depth",
    "lying_zeros",
    "thermometer",
    "scaled_logits",
    "square_root",
    "honest_clamp",
)
DATA = load("digits", examples=48)


def audited(name, attacks=(), data=DATA, **options):
    case = CASES[name]
    with construction_sites():
        network = case.build()
    claim = claim_about(threat_model(case.norm, case.epsilon), passes=case.passes, **options)
    return case, audit(network, data, claim, attacks=attacks)


def hand_accuracy(case):
    generator = torch.Generator().manual_seed(3)
    threat = threat_model(case.norm, case.epsilon)
    x_adv = threat.settle(case.attack(DATA.x, DATA.y, generator), DATA.x)
    classifier = Classifier(case.build(), passes=case.passes, deterministic=not case.random)
    draws = 40 if case.random else 1
    seen = judge(classifier, x_adv, DATA.x, DATA.y, threat, draws=draws, generator=generator)
    return 1 - float(seen.failure_rate.mean())


# Random, and a standard attack finds what there is to find: a fact, no finding.
HIDES_NOTHING = ("honest_mostly_right", "random_member")


def check(name):
    case, report = audited(name)
    places = [*report.masking]
    if name in HIDES_NOTHING:
        assert report.masking == []
        places += report.facts
    else:
        assert case.names_right({m.mechanism for m in report.masking}), report.masking
    guilty = {(str(file), line) for file, line in case.guilty}

    def at_fault(finding: MaskingFinding | Fact):
        end = finding.end_line if isinstance(finding, MaskingFinding) else None
        lines = range(finding.line or 0, (end or finding.line or 0) + 1)
        place = str(Path(finding.file or "").resolve())  # told from the working folder, where it lies in that
        return any((place, line) in guilty for line in lines)

    if guilty:
        assert any(at_fault(m) for m in places), places
    # Two points, and what the draws of a random network may add to them.
    slack = 0.02 + (0.02 if case.random else 0) + (0 if case.mechanisms else 0.01)
    assert report.robust_accuracy <= hand_accuracy(case) + slack + 1e-6
    return report


@pytest.mark.parametrize("name", QUICK)
def test_a_fixture_of_each_kind(name):
    check(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CASES if n not in QUICK])
def test_every_other_fixture(name):
    check(name)


def test_shattered_and_truly_robust_is_named_and_not_refuted():
    _, report = audited("honest_binarised", data=DATA[:16], claim=0.8, budget="quick")
    assert {m.mechanism for m in report.masking} == {"shattered"}
    assert report.verdict == "not_refuted"


def test_a_random_network_is_scored_as_it_is_deployed():
    class MostlyRight(nn.Module):
        """Right on 91 % of the draws, whatever the input: nothing to attack at epsilon 1e-9."""

        def __init__(self):
            super().__init__()
            self.base = CASES["honest_adversarial"].build()

        def forward(self, x):
            logits = self.base(x)
            wrong = torch.rand(len(x), 1) > 0.91
            return torch.where(wrong, logits.roll(1, 1), logits)

    data = load("digits", examples=30)
    report = audit(MostlyRight(), data, claim_about(Linf(epsilon=1e-9), budget="quick"))
    low, high = report.robust_accuracy_interval
    assert low <= 0.91 <= high
    assert abs(report.robust_accuracy - 0.91) < 0.03
    assert abs(report.clean_accuracy - 0.91) < 0.03
    assert report.stochastic


@pytest.mark.parametrize("claim", [0.9, pytest.param(None, marks=pytest.mark.slow)])
def test_evidence_is_verified_by_code_that_knows_no_attack(tmp_path, claim):
    from unmask.report.json import write_json
    from unmask.target.target import load_target

    case = CASES["bit_depth"]
    target = load_target(case.target)
    report = audit(target, DATA, claim_about(Linf(epsilon=case.epsilon), claim=claim), out=tmp_path)
    write_json(tmp_path, report)
    assert report.verdict == ("refuted" if claim else "not_refuted")
    assert verify(tmp_path).holds


def test_stops_once_the_claim_is_refuted_and_goes_on_if_exhaustive():
    _, short = audited("bit_depth", claim=0.99, budget="quick")
    _, long = audited("bit_depth", claim=0.99, budget="quick", exhaustive=True)
    assert short.verdict == long.verdict == "refuted"
    assert len(short.attacks) <= len(long.attacks)
    assert sum(a.forwards for a in short.attacks) <= sum(a.forwards for a in long.attacks)


@pytest.mark.parametrize("name", [pytest.param("honest_plain", marks=pytest.mark.slow), "bit_depth"])
def test_neither_batch_size_nor_order_changes_an_example(name):
    _, whole = audited(name, budget="quick", batch_size=48)
    _, parts = audited(name, budget="quick", batch_size=7)
    assert whole.robust_accuracy == pytest.approx(
        parts.robust_accuracy, abs=0.021
    )  # one example: floating point
    assert whole.naive_robust_accuracy == pytest.approx(parts.naive_robust_accuracy, abs=0.021)


def test_leaves_the_users_network_as_it_was():
    case = CASES["honest_plain"]
    network = case.build()
    modes = [m.training for m in network.modules()]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    state = torch.get_rng_state()
    audit(network, DATA, claim_about(Linf(epsilon=0.1), budget="quick"))
    assert [m.training for m in network.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_an_attack_of_the_users_own_runs_too():
    _, report = audited("honest_plain", budget="quick", attacks=[PGD(steps=3)])
    assert report.attacks[-1].recipe == "yours: PGD"


def test_out_of_memory_halves_the_batch_and_loses_nothing():
    class Small(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = CASES["honest_plain"].build()

        def forward(self, x):
            if len(x) > 20:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return self.inner(x)

    notes = []

    class Listening:
        def stage(self, name): ...
        def update(self, upper_bound, done, total): ...
        def finding(self, finding): ...
        def note(self, text):
            notes.append(text)

    report = audit(Small(), DATA, claim_about(Linf(epsilon=0.1), budget="quick"), progress=Listening())
    assert any("out of memory" in note for note in notes)
    assert report.robust_accuracy < 0.6


def test_a_journal_of_other_settings_is_refused(tmp_path):
    network = CASES["honest_plain"].build()
    audit(network, DATA, claim_about(Linf(epsilon=0.1), budget="quick"), out=tmp_path)
    with pytest.raises(UnusableInput, match="epsilon"):
        audit(network, DATA, claim_about(Linf(epsilon=0.2), budget="quick"), out=tmp_path, resume=True)


def test_standing_keeps_the_worst_and_ranks_by_margin_loss():
    from unmask.audit.campaign.standing import Standing
    from unmask.audit.runtime.progress import Silent

    network = CASES["honest_plain"].build()
    classifier = Classifier(network, deterministic=True)
    threat = Linf(epsilon=0.1)
    standing = Standing(
        classifier,
        DATA.x,
        DATA.y,
        threat,
        seed=0,
        index=DATA.index,
        draws=1,
        batch_size=16,
        journal=None,
        progress=Silent(),
    )
    everyone = torch.arange(len(DATA))
    standing.step("clean", None, lambda part, _: DATA.x[part], everyone)
    clean = standing.robust_accuracy
    standing.attack("pgd", "pgd", PGD(steps=10), standing.unbroken())
    broken = standing.robust_accuracy
    standing.step("clean again", None, lambda part, _: DATA.x[part], everyone)
    assert broken < clean
    assert standing.robust_accuracy == broken
    nearest = standing.unbroken(0.3)
    others = [n for n in standing.unbroken().tolist() if n not in nearest.tolist()]
    assert standing.margin_loss[nearest].min() >= standing.margin_loss[others].max()
    assert Streams.seeded(0, DATA.index, "a").seeds.unique().numel() == len(DATA)


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(tmp_path):
    case = CASES["honest_plain"]
    command = [sys.executable, "-m", "unmask", "audit", case.target, "--data", "digits", "--examples", "100"]
    command += ["--epsilon", "0.1", "--norm", "linf", "--batch-size", "25", "--quiet", "--seed", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, env=environment)
    process = subprocess.Popen([*command, "--out", str(tmp_path / "cut")], env=environment)
    journal = tmp_path / "cut" / "journal"
    for _ in range(600):
        if journal.exists() and len(list(journal.glob("*.entry"))) > 12:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([sys.executable, "-m", "unmask", "audit", "--resume", str(tmp_path / "cut")], check=True)

    def essence(folder: Path):
        import json

        report = json.loads((folder / "report.json").read_text())
        for attack in report["attacks"]:
            del attack["seconds"]
        del report["cost"]["seconds"], report["environment"]["date"]
        return report

    assert essence(tmp_path / "cut") == essence(tmp_path / "whole")
    assert Journal  # the entries were read back by it
