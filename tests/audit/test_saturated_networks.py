"""The audit, told nothing, on saturated networks: mechanism, line, and what the hand attack leaves."""

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unmask.attacks import FGSM
from unmask.audit.run import audit
from unmask.claim.claim import claim_about
from unmask.classifier import Classifier
from unmask.data import load
from unmask.gradients import LogitScale, ReducedGain
from unmask.randomness import Streams
from unmask.threat import Linf
from unmask.training import Saturated

THREAT = Linf(epsilon=0.25)
WEIGHTS = Path(__file__).parents[2] / "reproductions" / "saturation" / "weights"


class Network(nn.Module):
    """Three hidden layers, written out so that a finding has a line to point to."""

    def __init__(self, activation, pixels, width):
        super().__init__()
        self.a, self.f = nn.Linear(pixels, width), activation()
        self.b, self.g = nn.Linear(width, width), activation()
        self.c, self.h = nn.Linear(width, width), activation()
        self.readout = nn.Linear(width, 10)

    def forward(self, x):
        x = self.f(self.a(x.flatten(1)))  # hidden
        x = self.g(self.b(x))  # hidden
        x = self.h(self.c(x))  # hidden
        return self.readout(x)  # read-out


def lines(mark):
    source = Path(__file__).read_text().splitlines()
    return {i for i, line in enumerate(source, 1) if line.endswith(f"# {mark}")}


def examine(network, data, estimators, mark):
    network.eval()
    report = audit(network, data, claim_about(THREAT, budget="quick"))
    classifier = Classifier(network, deterministic=True)
    left = []
    for gradient in estimators:
        streams = Streams.seeded(0, data.index, "fgsm")
        x_adv = FGSM(gradient=gradient).run(classifier, data.x, data.y, THREAT, generator=streams)
        left.append(float((network(x_adv).argmax(1) == data.y).float().mean()))
    print(report.naive_robust_accuracy, report.robust_accuracy, min(left), report.masking)
    assert report.robust_accuracy <= min(left) + 0.02
    assert report.naive_robust_accuracy > report.robust_accuracy + 0.3
    named = [f for f in report.masking if f.mechanism == "vanishing"]
    here = [f for f in named if f.file and Path(f.file).resolve() == Path(__file__)]
    assert any(f.line in lines(mark) for f in here), report.masking
    return named


def test_saturated_sigmoids_are_named_with_their_line_and_repaired_by_gain():
    network = Network(nn.Sigmoid, 64, 50)
    recipe = Saturated(
        epochs=20, batch_size=64, gain=2.0, reach=1.0, strength=1e-3, sharpening=1e4, learning_rate=3e-3
    )
    recipe.fit(network, load("digits", split="train"), None, generator=torch.Generator().manual_seed(0))
    stable = [ReducedGain(g) for g in (1e-3, 3e-4, 1e-4)]
    named = examine(network, load("digits", split="test", examples=64), stable, "hidden")
    assert any("gain" in (f.repair or "") for f in named)


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize("name", ["relu", "sigmoid"])
def test_the_networks_of_the_reproduction(name):
    if "UNMASK_DATA" not in os.environ:
        pytest.skip("UNMASK_DATA is not set: no MNIST here")
    network = Network({"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[name], 784, 200)
    own = list(network.state_dict())
    stored = load_file(
        WEIGHTS / f"{'saturated_relu' if name == 'relu' else 'sharpened_sigmoid'}_mnist.safetensors"
    )
    order = sorted(stored, key=lambda key: (int(key.split(".")[1]), key.endswith("bias")))
    network.load_state_dict({key: stored[theirs] for key, theirs in zip(own, order, strict=True)})
    estimators = [ReducedGain(g) if name == "sigmoid" else LogitScale(scale=g) for g in (1e-3, 3e-4, 1e-4)]
    data = load("mnist", split="test", examples=64)
    examine(network, data, estimators, "hidden" if name == "sigmoid" else "read-out")
