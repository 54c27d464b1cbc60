"""Other people's MagNet, its reformer and both its detectors, audited by what it returns."""

import importlib.util
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from unmask import Outputs
from unmask.attacks import JointPGD
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.judge import judge
from unmask.threat import Linf

MODELS = Path(os.environ.get("UNMASK_DATA", ""), "..", "models", "networks.py").resolve()
THREAT = Linf(epsilon=0.3)


class Guarded(nn.Module):
    """MagNet with its detectors' thresholds, each at 2.5 % of clean images."""

    def __init__(self, magnet, clean):
        super().__init__()
        self.magnet = magnet
        with torch.no_grad():
            scores = torch.stack(list(magnet.scores(clean)))
        self.thresholds = scores.quantile(0.975, dim=1)
        self.scale = scores.std(1)

    def forward(self, x):
        scores = torch.stack(list(self.magnet.scores(x)), 1)
        suspicion = ((scores - self.thresholds) / self.scale).amax(1)
        return Outputs(self.magnet(x), suspicion)  # guilty


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not MODELS.is_file(), reason="needs $UNMASK_DATA/../models")
def test_told_nothing():
    spec = importlib.util.spec_from_file_location("other_peoples_networks", MODELS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    whole = load("mnist", split="test", examples=364)
    network = Guarded(module.mnist_magnet(), whole.x[64:]).eval()
    with torch.no_grad():
        right = (network.magnet(whole.x[:64]).argmax(1) == whole.y[:64]).nonzero()[:32, 0]
    data = whole[right]
    guarded = Classifier(network, deterministic=True)
    hand = torch.zeros(len(data))
    for attack in (JointPGD(steps=80), JointPGD(rule="orthogonal", steps=80), JointPGD(targets=9, steps=80)):
        generator = torch.Generator().manual_seed(0)
        x_adv = attack.run(guarded, data.x, data.y, THREAT, generator=generator)
        seen = judge(guarded, x_adv, data.x, data.y, THREAT, generator=generator)
        hand = torch.maximum(hand, seen.failure_rate)
    report = audit(network, data, claim_about(THREAT))
    found = [(f.mechanism, f.line, f.code) for f in report.masking]
    print(
        f"\nMagNet: clean {report.clean_accuracy:.3f}, naive {report.naive_robust_accuracy:.3f}, "
        f"hand {1 - float(hand.mean()):.3f}, audit {report.robust_accuracy:.3f}, "
        f"{report.cost.seconds:.0f} s, {found}"
    )
    assert report.robust_accuracy <= 1 - float(hand.mean()) + 0.02
    assert report.naive_robust_accuracy - report.robust_accuracy > 0.3
    (finding,) = [f for f in report.masking if f.mechanism == "detector"]
    assert Path(finding.file).name == Path(__file__).name
    assert "suspicion" in finding.code
