"""Radii of single channels or features: the plain norm in units of them, and nothing where there is but one."""

import pytest
import torch
from scipy.optimize import minimize

from unmask.attacks import APGD, FAB, PGD, BoundaryWalk, CarliniWagner, HopSkipJump, RayS, Square
from unmask.attacks.hyperplane import to_hyperplane
from unmask.bounds import certify
from unmask.classifier import Classifier
from unmask.diagnostics.unbounded import whole_box
from unmask.errors import Unsupported, UnusableInput
from unmask.judge import fooled
from unmask.randomness import Streams
from unmask.threat import BALLS, L0, L2, Linf, threat_model

norms = pytest.mark.parametrize("norm", list(BALLS))
RADII = [0.3, 0.0, 0.12, 0.06, 0.3]


def draw(seed: int = 0, examples: int = 6, *, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x = torch.rand(examples, len(RADII), generator=rng)
    return x, x + scale * torch.randn(x.shape, generator=rng)


def streams(x: torch.Tensor) -> Streams:
    return Streams.seeded(0, torch.arange(len(x)))


@norms
def test_equal_radii_are_the_ordinary_ball(norm):
    assert threat_model(norm, [0.3] * 5) == threat_model(norm, 0.3)


@norms
def test_distance_is_the_norm_in_units_of_the_radii(norm):
    x = torch.full((1, 5), 0.5)
    moved = x + torch.tensor([[0.1, 0.0, -0.04, 0.03, 0.0]])
    shares = torch.tensor([[0.1 / 0.3, 0.04 / 0.12, 0.03 / 0.06]], dtype=torch.float64)
    expected = 0.3 * torch.linalg.vector_norm(shares, BALLS[norm].p, dim=1)
    torch.testing.assert_close(threat_model(norm, RADII).distance(moved, x), expected, rtol=1e-5, atol=0)


@norms
def test_what_has_radius_zero_does_not_move(norm):
    threat, (x, x_adv) = threat_model(norm, RADII), draw()
    touched = x.clone()
    touched[:, 1] += 1e-6
    assert threat.distance(touched, x).isinf().all()
    assert not threat.contains(touched.clamp(0, 1), x).any()
    proposals = {
        "project": threat.project(x_adv, x),
        "settle": threat.settle(x_adv, x),
        "projection": threat.projection(x)(x_adv.clone()),
        "random_start": threat.random_start(x, generator=streams(x)),
        "random_point": threat.random_point(x, generator=streams(x)),
        "within": threat.within(x_adv, x, torch.full((6,), 0.1, dtype=torch.float64)),
        "ascend": threat.ascend(x, x_adv, torch.full((6,), 0.1)),
    }
    for name, point in proposals.items():
        assert torch.equal(point[:, 1], x[:, 1]), name
        assert (threat.distance(point, x) <= 0.3 * (1 + 1e-5)).all(), name
    assert threat.contains(proposals["settle"], x).all()
    assert (proposals["random_start"] != x)[:, [0, 2, 3, 4]].all()


@norms
def test_project_is_the_nearest_point_in_units_of_the_radii(norm):
    threat, (x, x_adv) = threat_model(norm, RADII), draw(3, scale=0.3)
    free = [0, 2, 3, 4]
    unit = torch.tensor(RADII)[free] / 0.3
    for i in range(3):
        at = ((x_adv - x)[i, free] / unit).double().numpy()
        low, high = (((side - x[i, free]) / unit).double().numpy() for side in (0.0, 1.0))
        limits = {
            "linf": [(max(lo, -0.3), min(hi, 0.3)) for lo, hi in zip(low, high, strict=True)],
            "l2": list(zip(low, high, strict=True)),
            "l1": list(zip(low, high, strict=True)),
        }[norm]
        inside = {
            "linf": [],
            "l2": [{"type": "ineq", "fun": lambda u: 0.09 - (u**2).sum()}],
            "l1": [{"type": "ineq", "fun": lambda u: 0.3 - abs(u).sum()}],
        }[norm]
        best = minimize(
            lambda u, at=at: ((u - at) ** 2).sum(), 0 * at, bounds=limits, constraints=inside, tol=1e-12
        )
        found = ((threat.project(x_adv, x) - x)[i, free] / unit).double().numpy()
        # L2 draws towards x first and clamps then, which is no more than a point of both.
        slack = 0.3 if norm == "l2" else 1e-3
        assert ((found - at) ** 2).sum() <= best.fun * (1 + slack) + 1e-6


@norms
def test_steepest_ascent_gains_the_dual_norm(norm):
    threat, (_, grad) = threat_model(norm, RADII), draw(5)
    direction = threat.steepest_ascent(grad)
    torch.testing.assert_close((direction * grad).sum(1), threat.dual_length(grad))
    torch.testing.assert_close(threat.length(direction), torch.ones(6))
    rng = torch.Generator().manual_seed(1)
    for _ in range(200):
        other = threat.from_units(torch.randn(grad.shape, generator=rng))
        other = other / threat.length(other)[:, None]
        assert ((other * grad).sum(1) <= threat.dual_length(grad) + 1e-5).all()


@norms
def test_the_step_to_a_hyperplane_is_the_shortest(norm):
    threat = threat_model(norm, RADII)
    x, normal = torch.full((6, 5), 0.5), draw(7)[1] - 0.5
    gap = 0.05 * threat.dual_length(normal)
    step = to_hyperplane(threat, x, normal, gap)
    torch.testing.assert_close((step * normal).sum(1), gap, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(threat.length(step), torch.full((6,), 0.05), rtol=1e-3, atol=0)


def line() -> tuple[Classifier, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear network of two classes, and how far each example is from its boundary, `[batch]` of `dual_length`."""
    normal = torch.tensor([0.5, 9.0, -1.0, 2.0, 0.7])
    network = torch.nn.Linear(5, 2, bias=False).eval()
    with torch.no_grad():
        network.weight.copy_(torch.stack([normal, -normal]) / 2)
    rng = torch.Generator().manual_seed(0)
    x = torch.full((12, 5), 0.5) + 0.05 * torch.randn(12, 5, generator=rng)
    # Placed at a chosen value of the margin by the feature that may not move.
    wanted = torch.linspace(0.02, 0.2, 12) * torch.tensor([1, -1]).repeat(6)
    x[:, 1] = 0
    x[:, 1] = (wanted - x @ normal) / 9.0
    x = x.clamp(0, 1)
    margin = x @ normal
    return Classifier(network, deterministic=True), x, (margin < 0).long(), margin.abs()


@norms
@pytest.mark.parametrize(
    "attack",
    [APGD(steps=40), PGD(steps=40), FAB(steps=30), BoundaryWalk(steps=60), Square(queries=400)],
    ids=lambda a: type(a).__name__,
)
def test_attacks_reach_the_optimum_of_a_linear_network(norm, attack):
    if norm == "l1" and isinstance(attack, PGD):
        pytest.skip("one step of PGD under L1 moves one feature")
    classifier, x, y, margin = line()
    assert (classifier(x, generator=streams(x)).logits.argmax(1) == y).all()
    threat = threat_model(norm, RADII)
    normal = torch.tensor([[0.5, 9.0, -1.0, 2.0, 0.7]])
    reach = threat.dual_length(normal) * threat.epsilon
    breakable, safe = margin < 0.9 * reach, margin > reach
    x_adv = threat.settle(attack.run(classifier, x, y, threat, generator=streams(x)), x)
    won = fooled(classifier(x_adv, generator=streams(x)), y, threat)
    if (
        not isinstance(attack, Square) or norm == "linf"
    ):  # its windows need more than five features under L2 and L1
        assert won[breakable].all()
    assert not won[safe].any()
    assert torch.equal(x_adv[:, 1], x[:, 1])


@pytest.mark.parametrize(("attack", "norm"), [(RayS(queries=400), "linf"), (HopSkipJump(queries=2000), "l2")])
def test_attacks_by_labels_break_what_is_near(attack, norm):
    classifier, x, y, margin = line()
    threat = threat_model(norm, RADII)
    reach = threat.dual_length(torch.tensor([[0.5, 9.0, -1.0, 2.0, 0.7]])) * threat.epsilon
    x_adv = attack.run(classifier, x, y, threat, generator=streams(x))
    won = fooled(classifier(x_adv, generator=streams(x)), y, threat)
    assert won[margin < 0.5 * reach].all()
    assert threat.contains(x_adv, x).all()


@norms
def test_a_certificate_holds_and_is_no_looser_than_the_box_around(norm):
    classifier, x, y, margin = line()
    threat = threat_model(norm, RADII)
    reach = threat.dual_length(torch.tensor([[0.5, 9.0, -1.0, 2.0, 0.7]])) * threat.epsilon
    proved = certify(classifier.network, x, y, threat).certified
    assert not proved[margin < reach].any()
    assert proved[margin > 1.01 * Linf(RADII).dual_length(torch.tensor([[0.5, 9, -1, 2, 0.7]])) * 0.3].all()


def test_channels_of_images_have_radii_too():
    x = torch.rand(2, 3, 4, 4)
    threat = Linf([0.1, 0.0, 0.05])
    moved = threat.settle(x + 1, x) - x
    assert (moved[:, 0] <= 0.1 + 1e-6).all()
    assert (moved[:, 1] == 0).all()
    assert (moved[:, 2] <= 0.05 + 1e-6).all()


def test_unbounded_is_the_whole_box_for_everything():
    assert whole_box(L2(RADII), torch.zeros(1, 5)) == L2(epsilon=5**0.5)


def test_what_cannot_be_is_refused_in_a_line():
    with pytest.raises(UnusableInput, match="3 radii, and an input has 5 features"):
        Linf([0.1, 0.2, 0.3]).check_radius((5,))
    with pytest.raises(UnusableInput, match="zero or larger"):
        Linf([0.1, -0.2])
    with pytest.raises(UnusableInput, match="no value in \\[0, 1\\] can move by more"):
        Linf([8.0, 4.0]).check_radius((2,))
    with pytest.raises(UnusableInput, match="l0 counts"):
        L0([1, 2])  # type: ignore[arg-type]
    classifier, x, y, _ = line()
    with pytest.raises(Unsupported, match="one radius"):
        CarliniWagner().run(classifier, x, y, L2(RADII), generator=streams(x))
