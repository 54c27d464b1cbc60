"""The attack over signs of ReLUs against brute force and exact radii, where descents from a point fail."""

import pytest
import torch
from tests.bounds.networks import needle, planar_networks, random_network
from torch import nn

from unmask.attacks import APGD, Setting
from unmask.bounds import BranchAndBound, decide, exact_radius
from unmask.bounds.complete import branch_and_bound
from unmask.classifier import Classifier
from unmask.errors import Unsupported
from unmask.objectives import margin_loss
from unmask.threat import L0, L1, L2, Linf
from unmask.types import Outputs


def broken(network, x, y, threat, **fields):
    door = Classifier(network, deterministic=True)
    found = BranchAndBound(**fields).run(door, x, y, threat, generator=torch.Generator().manual_seed(0))
    assert threat.contains(found, x).all()
    assert (found.dtype, found.shape) == (x.dtype, x.shape)
    return network(found).argmax(1) != y


# In L2 and L1 the last linear programs see the box around the ball and not the ball.
@pytest.mark.parametrize(
    ("norm", "beyond"), [(Linf, 1.0), (L2, 1.005), pytest.param(L1, 1.005, marks=pytest.mark.slow)]
)
def test_just_beyond_the_nearest_point_of_a_grid_and_never_before(norm, beyond):
    tried = 0
    for network, x, y, wrong in planar_networks():
        if not len(wrong):
            continue
        tried += 1
        nearest = float(norm(epsilon=1.0).distance(wrong, x.expand_as(wrong)).min())
        assert broken(network, x, y, norm(epsilon=beyond * nearest + 1e-4)).all()
        assert not broken(network, x, y, norm(epsilon=nearest - 0.005)).any()
    assert tried >= 4


def test_a_needle_that_the_gradient_leads_away_from():
    network, x, y = needle(8).requires_grad_(True), torch.full((2, 1, 2, 4), 0.5), torch.tensor([0, 0])
    far, near = Linf(epsilon=0.1075), Linf(epsilon=0.106)
    door = Classifier(network, deterministic=True)
    climbed = APGD(steps=50, objective=margin_loss).run(door, x, y, far, generator=torch.Generator())
    assert (network(climbed).argmax(1) == y).all()
    assert broken(network, x, y, far).all()
    assert not broken(network, x, y, near).any()


def radii(kind, seed):
    network = random_network(kind, seed, 1.5)
    x = torch.rand(6, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    y = network(x).argmax(1)
    known = torch.tensor([e.radius for e in exact_radius(network, x, y, Linf(epsilon=0.25))]).double()
    some = known.isfinite()
    return network, x[some], y[some], known[some]


def test_all_fall_just_beyond_their_exact_radius():
    network, x, y, known = radii("mlp_relu", 1)
    assert len(x) >= 3
    for i in range(len(x)):
        one = slice(i, i + 1)
        assert broken(network, x[one], y[one], Linf(epsilon=1.005 * float(known[i]))).all()
        assert not broken(network, x[one], y[one], Linf(epsilon=0.995 * float(known[i]))).any()


def test_it_stops_at_its_number_of_branches_and_where_everything_is_proved(monkeypatch):
    asked = []
    climbed = branch_and_bound.BranchBounds.climbed

    def counted(self, now):
        asked.append(len(now.bound))
        return climbed(self, now)

    monkeypatch.setattr(branch_and_bound.BranchBounds, "climbed", counted)
    network = random_network("cnn_relu_avg", 0, gain=1.0)
    x = torch.rand(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    y = network(x).argmax(1)
    assert decide(network, x, y, Linf(epsilon=1e-4))[0].answer == "safe"
    asked.clear()
    broken(network, x, y, Linf(epsilon=1e-4))
    assert asked == [2]  # one root for each other class, and both are closed
    asked.clear()
    broken(network, x, y, Linf(epsilon=0.02), branches=1, descents=1)
    assert asked == [2]


def test_what_it_refuses():
    x, y = torch.rand(1, 2, 6, 6), torch.tensor([0])
    relu = random_network("mlp_relu", 0)
    for network, threat, why in [
        (random_network("mlp_tanh", 0), Linf(epsilon=0.1), "ReLU only"),
        (nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), Linf(epsilon=0.1), "no ReLU"),
        (relu, Linf(epsilon=0.1, goal="targeted"), "every other class"),
        (relu, L0(epsilon=3), "needs a ball"),
    ]:
        with pytest.raises(Unsupported, match=why):
            broken(network, x, y, threat)
    with pytest.raises(Unsupported, match="up to 13 hidden elements; this network has 14"):
        broken(relu, x, y, Linf(epsilon=0.1), elements=13)
    attack, generator = BranchAndBound(), torch.Generator()
    for door in (
        Classifier(relu),
        Classifier(relu, deterministic=True, passes=2),
        Classifier(lambda v: Outputs(relu(v)), deterministic=True),
    ):
        with pytest.raises(Unsupported, match="judged in one call"):
            attack.run(door, x, y, Linf(epsilon=0.1), generator=generator)
    assert attack.fit(Setting(random=True)) is None
    assert attack.fit(Setting(detector=True)) is None
    assert attack.fit(Setting()) is attack
