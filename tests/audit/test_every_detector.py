"""The audit, told nothing, beside an attacker who knows the detector: mechanism, line and accuracy."""

from pathlib import Path

import pytest
import torch
from tests.fixtures.case import fixture

from unmask.attacks import APGD, PGD, JointPGD
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.defenses.detectors import (
    AnyOf,
    BayesianUncertainty,
    BinaryDetector,
    Detection,
    Divergence,
    FeatureSqueezing,
    KernelDensity,
    Layers,
    LocalDimension,
    Mahalanobis,
    ReconstructionError,
    suspicion,
    threshold_at,
)
from unmask.defenses.transforms import Autoencoder, train_autoencoder
from unmask.judge import judge
from unmask.objectives import Undetected, margin_loss
from unmask.threat import Linf

EXAMPLES = 40
THREAT = Linf(epsilon=0.2)
RATE = 0.05  # of false positives


class Bench:
    """An undefended network of digits, what the detectors are made of, and what their thresholds are set on."""

    def __init__(self):
        self.network = fixture("digits_networks").trained("plain_cnn")
        train = load("digits", split="train")
        self.x, self.y, self.held_out = train.x[:1000], train.y[:1000], train.x[1000:]
        plain = Classifier(self.network, deterministic=True)
        attack = PGD(steps=20, early_stop=False)
        self.known = attack.run(plain, self.x[:300], self.y[:300], THREAT, generator=self.generator())

    @staticmethod
    def generator():
        return torch.Generator().manual_seed(0)

    def magnet(self):
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            coder = Autoencoder(1, pooled=False, width=8)
        train_autoencoder(coder, self.x, generator=self.generator())
        parts = [ReconstructionError(coder, p=1.0), Divergence(self.network, coder, temperature=40.0)]
        scores = [suspicion(part, self.held_out, generator=self.generator()) for part in parts]
        held = [threshold_at(score, RATE / len(parts)) for score in scores]
        return AnyOf(list(zip(parts, held, strict=True)), self.held_out)

    def learned(self, layers=None):
        return BinaryDetector(self.x[:300], self.known, layers=layers, generator=self.generator())


# name: how it is made, and whether it misleads a standard attack on these digits, as the audit should say
CASES = {
    "kernel density": (lambda b: KernelDensity(b.network, b.x, b.y), True),
    "Mahalanobis": (lambda b: Mahalanobis(b.network, b.x, b.y, x_adv=b.known), True),
    "local dimension": (
        lambda b: LocalDimension(b.network, b.x[:300], x_adv=b.known[:150]),
        None,
    ),  # by 5 points
    "MagNet's detectors": (Bench.magnet, True),
    "feature squeezing": (lambda b: FeatureSqueezing(b.network), False),
    "learned, on images": (Bench.learned, True),
    "learned, on the last hidden layer": (lambda b: b.learned(Layers(b.network)), True),
    "Bayesian uncertainty": (lambda b: BayesianUncertainty(b.network, passes=10), False),
}


@pytest.fixture(scope="module")
def bench():
    return Bench()


def hand_accuracy(defence, detector, bench, data):
    """Both rules, every class, and a weighted sum; by the squeezers' surrogates where they are."""
    random = isinstance(detector, BayesianUncertainty)
    plain = Classifier(bench.network, deterministic=not random)
    guarded = seen = defence.wrap(plain)
    if isinstance(detector, FeatureSqueezing):
        seen = Detection(detector=detector.differentiable(), threshold=defence.threshold).wrap(plain)
    attacks = [
        JointPGD(steps=80, early_stop=not random),
        JointPGD(rule="orthogonal", steps=80, early_stop=not random),
        JointPGD(targets=9, steps=40, early_stop=not random),
        APGD(steps=80, objective=Undetected(margin_loss), early_stop=not random),
    ]
    best = torch.zeros(len(data))
    for attack in attacks:
        x_adv = attack.run(seen, data.x, data.y, THREAT, generator=bench.generator())
        found = judge(guarded, x_adv, data.x, data.y, THREAT, draws=16, generator=bench.generator())
        best = torch.maximum(best, found.failure_rate)
    return 1 - float(best.mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_told_nothing(name, bench):
    build, misleads = CASES[name]
    data = load("digits", examples=EXAMPLES)
    detector = build(bench)
    defence = Detection.at(RATE, detector, bench.held_out, generator=bench.generator())
    hand = hand_accuracy(defence, detector, bench, data)
    # What it returns is all that the audit is given: logits and the detector's score.
    report = audit(defence.wrap(Classifier(bench.network)).network, data, claim_about(THREAT))
    found = [(f.mechanism, Path(f.file or "").name, f.line, f.operation, f.repair) for f in report.masking]
    print(
        f"\n{name}: clean {report.clean_accuracy:.3f}, naive {report.naive_robust_accuracy:.3f}, "
        f"hand {hand:.3f}, audit {report.robust_accuracy:.3f}, {report.cost.seconds:.0f} s, {found}"
    )
    assert report.robust_accuracy <= hand + 0.02 + (0.02 if report.stochastic else 0)
    if misleads is None:
        return
    assert [f.mechanism for f in report.masking] == ["detector"] * misleads, found
    for finding in report.masking:
        assert finding.code == "return Outputs(logits, self.detector(x) - self.threshold)"
        assert "attacked together" in (finding.repair or "")
