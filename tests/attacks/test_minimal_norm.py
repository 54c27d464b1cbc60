"""FAB, Carlini-Wagner and the decision-based attacks against the closed form of a linear network."""

import pytest
import torch
from torch import nn

from unmask.attacks import FAB, CarliniWagner, HopSkipJump, RayS
from unmask.attacks.hyperplane import to_hyperplane
from unmask.classifier import Classifier
from unmask.judge import fooled
from unmask.randomness import Streams
from unmask.threat import BALLS, Linf, threat_model

LEAST = {
    "FAB": (FAB(steps=10, early_stop=False), ("linf", "l2", "l1"), 1.02),
    "FAB-T": (FAB(steps=10, one_by_one=True, early_stop=False), ("linf", "l2", "l1"), 1.02),
    "CarliniWagner": (CarliniWagner(steps=150, learning_rate=0.01, early_stop=False), ("l2",), 1.03),
    "RayS": (RayS(queries=3000, early_stop=False), ("linf",), 1.15),
    "HopSkipJump": (HopSkipJump(queries=4000, early_stop=False), ("l2",), 1.3),
}


@pytest.mark.parametrize(
    ("name", "norm"), [(n, norm) for n, (_, norms, _) in LEAST.items() for norm in norms]
)
def test_least_distance_among_several_classes(name, norm):
    rng = torch.Generator().manual_seed(2)
    linear = nn.Linear(40, 5, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(5, 40, generator=rng))
        linear.bias.copy_(-linear.weight.sum(1) / 2)
    x = 0.5 + 0.06 * torch.randn(10, 40, generator=rng, dtype=torch.float64)
    logits = linear(x)
    y = logits.argmax(1)
    gaps = logits.gather(1, y[:, None]) - logits
    normals = linear.weight[None] - linear.weight[y][:, None]
    reach = gaps / torch.linalg.vector_norm(normals, BALLS[norm].dual_p, dim=2).clamp_min(1e-12)
    least = reach.scatter(1, y[:, None], torch.inf).amin(1).detach()

    attack, _, factor = LEAST[name]
    threat = threat_model(norm, 20.0)
    classifier = Classifier(linear, deterministic=True)
    x_adv = attack.run(classifier, x, y, threat, generator=Streams.seeded(0, torch.arange(10)))
    assert fooled(classifier(x_adv, generator=rng), y, threat).all()
    ratio = threat.distance(x_adv, x) / least
    assert ratio.min() >= 1 - 1e-9
    assert ratio.median() <= factor, ratio


@pytest.mark.parametrize("norm", list(BALLS))
def test_to_hyperplane_is_least_and_exact(norm):
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(50, 20, generator=rng, dtype=torch.float64)
    normal = torch.randn(50, 20, generator=rng, dtype=torch.float64)
    gap = torch.linspace(-3, 3, 50, dtype=torch.float64)
    threat = threat_model(norm, 1.0)
    delta = to_hyperplane(threat, x, normal, gap)
    assert ((x + delta >= -1e-12) & (x + delta <= 1 + 1e-12)).all()
    torch.testing.assert_close((delta * normal).sum(1), gap)
    # No random feasible point of the same hyperplane is nearer.
    length = torch.linalg.vector_norm(delta, threat.p, dim=1)
    for _ in range(200):
        step = delta + 0.05 * torch.randn(50, 20, generator=rng, dtype=torch.float64)
        step = (x + step).clamp(0, 1) - x
        reaches = (step * normal).sum(1) * gap.sign() >= gap.abs()
        assert (torch.linalg.vector_norm(step, threat.p, dim=1)[reaches] >= length[reaches] - 1e-9).all()


def test_to_hyperplane_out_of_reach_ends_in_the_corner():
    x = torch.tensor([[0.2, 0.7]])
    delta = to_hyperplane(Linf(epsilon=1.0), x, torch.tensor([[1.0, -1.0]]), torch.tensor([100.0]))
    torch.testing.assert_close(x + delta, torch.tensor([[1.0, 0.0]]))


def test_confidence_is_reached():
    linear = nn.Linear(20, 3)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(3, 20, generator=torch.Generator().manual_seed(0)))
    x = torch.full((4, 20), 0.5)
    y = linear(x).argmax(1)
    classifier = Classifier(linear, deterministic=True)
    x_adv = CarliniWagner(confidence=0.5, steps=100).run(
        classifier, x, y, threat_model("l2", 3.0), generator=torch.Generator()
    )
    logits = linear(x_adv)
    other = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    assert (other - logits.gather(1, y[:, None])[:, 0] >= 0.5 - 1e-5).all()
