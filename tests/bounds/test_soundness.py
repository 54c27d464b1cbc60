"""Certificates against attacks on random networks: nothing certified is broken, no bound is above what is reached."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.bounds.networks import BUILDERS, random_network
from torch import nn

from unmask.attacks import FAB, PGD
from unmask.bounds import certified_radius, certify
from unmask.classifier import Classifier
from unmask.objectives import margin_loss
from unmask.threat import L1, L2, Linf

ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh}
RADII = {Linf: 0.2, L2: 0.8, L1: 3.0}
# The same random networks in every run of the fast profile; the slow one draws new ones.
FAST = settings(
    max_examples=50, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
SLOW = settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def cases(draw):
    """A network of any kind, images, a threat, and the certificate that is tried."""
    seed = draw(st.integers(0, 2**31 - 1))
    gain = draw(st.sampled_from([0.5, 1.0, 2.0, 4.0]))
    kind = draw(st.sampled_from(["deep", *BUILDERS]))
    if kind == "deep":
        widths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
        network = deep(widths, ACTIVATIONS[draw(st.sampled_from(sorted(ACTIVATIONS)))], seed, gain)
    else:
        network = random_network(kind, seed, gain)
    x = torch.rand(2, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    if draw(st.booleans()):
        x = x.round()  # pixels on the walls of the box
    norm = draw(st.sampled_from(list(RADII)))
    threat = norm(epsilon=RADII[norm] * draw(st.sampled_from([0.02, 0.1, 0.5, 1.0])))
    method = draw(st.sampled_from(["interval", "crown", "alpha_crown"]))
    return network, x, threat, method


def deep(widths, activation, seed, gain):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Flatten()]
        for wide_in, wide_out in zip([72, *widths], [*widths, 3], strict=True):
            layers += [nn.Linear(wide_in, wide_out), activation()]
        network = nn.Sequential(*layers[:-1])
        for parameter in network.parameters():
            parameter.data.mul_(gain)
    return network.eval().requires_grad_(False)


def margins_at(network, x, y):
    logits = network(x).double()
    return (logits.gather(1, y[:, None]) - logits).scatter(1, y[:, None], torch.inf)


def check(case):
    """The bound of every margin, the certificate, and the radius, each against what attacks reach."""
    network, x, threat, method = case
    y = network(x).argmax(1)
    door = Classifier(network, deterministic=True)
    generator = torch.Generator().manual_seed(0)
    found = certify(network, x, y, threat, methods=(method,))
    attack = PGD(steps=8, rel_step_size=0.3, objective=margin_loss)
    points = [attack.run(door, x, y, threat, generator=generator)]
    points += [threat.random_start(x, generator=generator) for _ in range(3)]
    for point in points:
        reached = margins_at(network, point, y)
        slack = 1e-4 * (1 + network(point).abs().amax())  # float32 rounding of the network itself
        assert (found.margins <= reached + slack).all()
        assert not ((network(point).argmax(1) != y) & found.certified).any()
    whole = type(threat)(epsilon=100.0)
    nearest = FAB(steps=5, early_stop=False).run(door, x, y, whole, generator=generator)
    broken = network(nearest).argmax(1) != y
    distance = whole.distance(nearest, x)
    radius = certified_radius(network, x, y, threat, methods=("interval", "crown"), halvings=2)
    assert (radius[broken] <= distance[broken]).all()


@given(case=cases())
@FAST
def test_nothing_certified_is_broken(case):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(3))
@given(case=cases())
@SLOW
def test_nothing_certified_is_broken_on_thousands_of_networks(part, case):
    check(case)
