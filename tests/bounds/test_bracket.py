"""The three radii: their order, and marks that are right on networks that mislead and on those that do not."""

import importlib.util
import math
import os
from pathlib import Path

import pytest
import torch
from reproductions.clever.counterexamples import counterexamples
from tests.bounds.networks import random_network
from tests.bounds.test_other_peoples_networks import mnist
from torch import nn

from unmask.bounds import Bracketing, Clever, NearestSearch, mark
from unmask.bounds.clever.score import CleverScore
from unmask.bounds.clever.weibull import WeibullFit
from unmask.classifier import Classifier
from unmask.data import load
from unmask.errors import Unsupported
from unmask.randomness import Streams
from unmask.threat import L2, Linf

FIXTURES = Path(__file__).parents[1] / "fixtures"
QUICK = Bracketing(
    clever=Clever(batches=30, samples=32), search=NearestSearch(steps=12, restarts=1), halvings=5
)


def digits_network(name):
    spec = importlib.util.spec_from_file_location(
        "digits_networks_of_bounds", FIXTURES / "digits_networks.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.trained(name)


def bracket(network, x, y, threat, how=QUICK):
    streams = Streams.seeded(0, torch.arange(len(x)))
    return how.run(Classifier(network, deterministic=True), x, y, threat, generator=streams)


def score(value, **changes):
    fit = WeibullFit(3.0, 1.0, 1.0, 1.0, 0.05, 0.5)
    fields = {"target": 1, "margin": 1.0, "lipschitz": 1.0, "fit": fit, "zero_gradient_share": 0.0}
    fields["spread"] = 0.3
    return CleverScore(value, **{**fields, "capped": False, "degenerate": None, **changes})


def test_rules_of_the_marks():
    assert mark(score(0.1), 0.2).mark == "unrefuted"
    assert mark(score(0.1), 0.2, certified=0.05).reason == ""
    assert mark(score(0.1), 0.2, certified=0.15).reason == "below what is proved"
    assert mark(score(0.1), 0.1).mark == "refuted"
    assert mark(score(0.1), math.inf).mark == "unrefuted"
    assert mark(score(0.0), 0.0, masking="here").mark == "unrefuted"
    assert mark(score(0.1), 0.05, masking="here").mark == "refuted"
    for doubtful, reason in (
        (mark(score(0.1, zero_gradient_share=0.001), 0.2), "0.1 % of the sampled gradients"),
        (mark(score(0.1), 0.2, zero_at_x=True), "at the example"),
        (mark(score(0.1), 0.2, masking="masked at a.py:3"), "a.py:3"),
        (mark(score(math.nan), math.inf), "not finite"),
        (mark(score(0.1, fit=WeibullFit(3.0, 1.0, 1.0, 1.0, 0.3, 0.001)), 0.2), "p = 0.001"),
    ):
        assert doubtful.mark == "unreliable"
        assert reason in doubtful.reason
    assert mark(score(0.1, fit=WeibullFit(3.0, 1.0, 1.0, 1.0, 0.3, math.nan)), 0.2).mark == "unrefuted"
    assert mark(score(0.1, fit=None), 0.2).mark == "unrefuted"
    repeating = score(0.1, fit=WeibullFit(3.0, 1.0, 1.0, 1.0, 0.3, 1e-9), spread=0.9)
    assert mark(repeating, 0.2).mark == "unrefuted"


@pytest.mark.parametrize("threat", [Linf(epsilon=0.3), L2(epsilon=2.0)])
def test_all_three_are_the_distance_of_a_linear_model(threat):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).requires_grad_(False)
    x = 0.3 + 0.4 * torch.rand(6, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    logits = network(x).double()
    y = logits.argmax(1)
    weight = network[1].weight.double()
    slope = torch.linalg.vector_norm(weight[y][:, None] - weight, threat.dual_p, dim=2)
    ratio = (logits.gather(1, y[:, None]) - logits) / slope
    exact = ratio.masked_fill(ratio.isnan(), torch.inf).amin(1).tolist()
    found = bracket(network, x, y, threat, Bracketing(clever=Clever(batches=10, samples=8), halvings=12))
    for i, example in enumerate(found.examples):
        assert example.certified == pytest.approx(exact[i], rel=0.02)
        assert example.certified <= exact[i]
        assert example.clever.score == pytest.approx(exact[i], rel=1e-4)
        assert exact[i] <= example.attack * (1 + 1e-5)
        assert example.attack == pytest.approx(exact[i], rel=2e-3)
    distance = threat.distance(found.x_adv, x)
    assert distance.tolist() == pytest.approx([e.attack for e in found.examples])
    assert (network(found.x_adv).argmax(1) != y).all()
    assert not found.masking


@pytest.mark.parametrize("name", ["plain_mlp", pytest.param("plain_cnn", marks=pytest.mark.slow)])
def test_plain_networks_bear_no_mark(name):
    data = load("digits", examples=8)
    found = bracket(digits_network(name), data.x, data.y, Linf(epsilon=0.2))
    assert found.counts() == {"refuted": 0, "unreliable": 0, "unrefuted": 8}
    assert all(0 < e.certified <= e.attack < 0.5 for e in found.examples)
    assert not found.masking
    certified, clever, attack = found.medians()
    assert certified < attack
    assert clever < attack


@pytest.mark.parametrize(
    "name",
    [
        "staircase",
        "float32",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ramp", "sigmoid", "float64")),
    ],
)
def test_every_misleading_score_is_marked(name):
    data = load("digits", examples=4)
    network = counterexamples(digits_network("plain_cnn"))[name]
    found = bracket(network, data.x, data.y, Linf(epsilon=0.3))
    misled = 0
    for example in found.examples:
        if example.clever.score >= example.attack:
            misled += 1
            assert example.marked.mark == "refuted"
        elif example.clever.score > 0:
            assert example.marked.mark == "unreliable"
    assert misled >= 1
    assert "counterexamples.py" in found.masking


def test_targeted():
    data = load("digits", examples=4)
    network = digits_network("plain_mlp")
    targets = network(data.x).argsort(1)[:, -2]
    untargeted = bracket(network, data.x, data.y, Linf(epsilon=0.2))
    targeted = bracket(network, data.x, targets, Linf(epsilon=0.2, goal="targeted"))
    for free, aimed in zip(untargeted.examples, targeted.examples, strict=True):
        assert aimed.certified >= free.certified * 0.99
        assert aimed.attack >= free.attack * 0.97
    assert (network(targeted.x_adv).argmax(1) == targets).all()


def test_wrong_predictions_have_no_radius():
    network = random_network("mlp_relu", 0)
    x = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    found = bracket(network, x, network(x).argmin(1), Linf(epsilon=0.1))
    assert all((e.certified, e.clever.score, e.attack) == (0.0, 0.0, 0.0) for e in found.examples)
    assert found.counts()["unrefuted"] == 3


def test_a_random_network_is_refused():
    class Noisy(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :3] + torch.rand(1)

    x = torch.rand(2, 2, 6, 6)
    door = Classifier(Noisy())
    with pytest.raises(Unsupported, match="random"):
        QUICK.run(door, x, torch.zeros(2, dtype=torch.long), Linf(epsilon=0.1), generator=torch.Generator())


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist_lenet5", "mnist_fast_pgd", "mnist_fc_50x2", "mnist_wong_kolter"])
def test_at_most_two_per_cent_of_plain_scores_are_doubted(name):
    if not os.environ.get("UNMASK_DATA"):
        pytest.skip("UNMASK_DATA is not set")
    folder = Path(os.environ["UNMASK_DATA"])
    spec = importlib.util.spec_from_file_location("networks", folder.parent / "models" / "networks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y = mnist(folder, 50)
    how = Bracketing(
        clever=Clever(batches=50, samples=64), search=NearestSearch(steps=20, restarts=1), methods=()
    )
    found = bracket(getattr(module, name)(), x, y, L2(epsilon=2.0), how)
    assert found.counts()["unreliable"] <= 1
