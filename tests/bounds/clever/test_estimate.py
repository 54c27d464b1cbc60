"""CLEVER against closed forms, against ART, and on the counterexamples that it gets wrong."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from reproductions.clever.counterexamples import (
    InPrecision,
    Ramp,
    SaturatedSigmoid,
    Staircase,
    counterexamples,
)
from scipy.optimize import minimize
from scipy.stats import weibull_max
from tests.bounds.networks import random_network
from torch import nn

from unmask.bounds.clever.estimate import Clever
from unmask.bounds.clever.half import HalfTape
from unmask.bounds.clever.marks import mark
from unmask.bounds.clever.weibull import fit_reverse_weibull
from unmask.classifier import Classifier
from unmask.errors import UnusableInput
from unmask.randomness import Streams
from unmask.threat import L1, L2, Linf

SMALL = Clever(batches=25, samples=16)


def images(count, seed=0):
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(72, 3)).requires_grad_(False)


@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_exact_on_a_linear_model(threat):
    network = linear()
    x = images(6)
    logits = network(x).double()
    y = logits.argmax(1)
    weight = network[1].weight.double()
    slope = torch.linalg.vector_norm(weight[y][:, None] - weight, threat.dual_p, dim=2)
    ratio = (logits.gather(1, y[:, None]) - logits) / slope
    expected, target = ratio.masked_fill(ratio.isnan(), torch.inf).min(1)
    got = SMALL.run(Classifier(network), x, y, threat(epsilon=100.0), generator=generator())
    assert [s.score for s in got] == pytest.approx(expected.tolist(), rel=1e-5)
    assert [s.target for s in got] == target.tolist()
    assert all(s.degenerate == "constant" and s.fit is None and not s.capped for s in got)
    capped = SMALL.run(Classifier(network), x, y, threat(epsilon=1e-6), generator=generator())
    assert all(s.score == 1e-6 and s.capped for s in capped)


def test_targeted_is_one_of_the_untargeted():
    network = random_network("mlp_tanh", 1)
    x = images(4)
    y = network(x).argmax(1)
    untargeted = SMALL.run(Classifier(network), x, y, L2(epsilon=5.0), generator=generator())
    targets = torch.tensor([s.target for s in untargeted])
    targeted = SMALL.run(
        Classifier(network), x, targets, L2(epsilon=5.0, goal="targeted"), generator=generator()
    )
    assert [s.score for s in targeted] == pytest.approx([s.score for s in untargeted], rel=1e-6)
    other = SMALL.run(Classifier(network), x, y, L2(epsilon=5.0, goal="targeted"), generator=generator())
    assert all(s.score == 0 and s.degenerate == "misclassified" for s in other)


@pytest.mark.parametrize("shape", [1.5, 2.0, 4.0, 8.0])
def test_fit_recovers_a_law(shape):
    sample = weibull_max.rvs(shape, loc=3.0, scale=0.5, size=4000, random_state=np.random.default_rng(0))
    fit = fit_reverse_weibull(1e6 * sample)
    reference = weibull_max(shape, loc=3e6, scale=0.5e6)
    assert weibull_max.nnlf((fit.shape, fit.location, fit.scale), 1e6 * sample) <= weibull_max.nnlf(
        (shape, 3e6, 0.5e6), 1e6 * sample
    )
    assert fit.ks_statistic < 0.02
    quantiles = reference.ppf([0.05, 0.5, 0.95])
    fitted = weibull_max(fit.shape, fit.location, fit.scale).ppf([0.05, 0.5, 0.95])
    np.testing.assert_allclose(fitted, quantiles, atol=0.03 * reference.std())


def test_fit_rejects_another_law():
    generator = np.random.default_rng(0)
    two_bumps = np.concatenate([generator.normal(0, 0.01, 250), generator.normal(1, 0.01, 250)])
    assert fit_reverse_weibull(two_bumps).ks_pvalue < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_fit_of_a_gumbel_sample_stays_finite(seed):
    """Its likelihood has no maximum: unpenalised, the end point runs away."""
    sample = np.random.default_rng(seed).gumbel(size=500)
    fit = fit_reverse_weibull(sample)
    assert sample.max() < fit.location < sample.max() + 10 * np.ptp(sample)


def test_fit_is_a_maximum_and_beats_a_simplex_search():
    for seed, shape in enumerate((1.5, 3.0, 8.0, 30.0)):
        sample = weibull_max.rvs(shape, size=300, random_state=np.random.default_rng(seed))
        fit = fit_reverse_weibull(sample)

        def loss(shape, location, scale, sample=sample):
            return weibull_max.nnlf((shape, location, scale), sample) + 0.01 * (scale / np.ptp(sample)) ** 2

        ours = loss(fit.shape, fit.location, fit.scale)
        start = (fit.shape, fit.location, fit.scale)
        other = minimize(
            lambda p: loss(*p), start, method="Nelder-Mead", options={"maxiter": 4000, "fatol": 1e-9}
        )
        assert ours <= other.fun + 1e-3
        direct = minimize(lambda p: loss(*p), (3.0, sample.max() + 0.2, 1.0), method="Nelder-Mead")
        assert ours <= direct.fun + 1e-3


def test_a_law_that_does_not_fit_leaves_the_largest_sample():
    sample = np.repeat([1.0, 2.0, 3.0], 100)
    fit = fit_reverse_weibull(sample)
    assert fit.ks_pvalue < 1e-3
    assert fit.end_point == 3.0
    smooth = weibull_max.rvs(3.0, size=300, random_state=np.random.default_rng(0))
    assert fit_reverse_weibull(smooth).end_point == fit_reverse_weibull(smooth).location


@pytest.mark.parametrize(
    ("threat", "pool_factor"),
    [
        (Linf, None),
        (L2, 10),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in ((Linf, 10), (L2, None), (L1, None), (L1, 10))
        ),
    ],
)
def test_agrees_with_art(threat, pool_factor):
    """The same network and settings, other random points: equal to the spread over seeds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metrics = pytest.importorskip("art.metrics", reason="adversarial-robustness-toolbox is not installed")
        from art.estimators.classification import PyTorchClassifier
    network = random_network("mlp_tanh", 1, gain=1.0)
    x = images(1, 3)
    y = network(x).argmax(1)
    radius = {"linf": 0.2, "l2": 1.0, "l1": 4.0}[threat.norm]
    target = (y + 1) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs_door = PyTorchClassifier(
            network, nn.CrossEntropyLoss(), (2, 6, 6), 3, clip_values=(0, 1), device_type="cpu"
        )
        state = np.random.get_state()
        np.random.seed(0)
        theirs = [
            metrics.clever_t(theirs_door, x[0].numpy(), int(target), 50, 64, radius, threat.p, pool_factor=10)
            for _ in range(4)
        ]
        np.random.set_state(state)
    clever = Clever(batches=50, samples=64, pool_factor=pool_factor)
    door = Classifier(network, deterministic=True)
    goal = threat(epsilon=radius, goal="targeted")
    ours = [clever.run(door, x, target, goal, generator=generator(seed))[0].score for seed in range(4)]
    assert max(ours) < radius
    spread = max(np.ptp(theirs), np.ptp(ours), 0.01 * np.mean(theirs))
    assert abs(np.mean(ours) - np.mean(theirs)) < 2 * spread


def test_scores_in_half_precision():
    """On a linear model every maximum is the same, so that the score carries the rounding and no fit."""
    network = linear()
    x = images(6)
    y = network(x).argmax(1)
    door = Classifier(network)
    for threat in (Linf(epsilon=100.0), L2(epsilon=100.0), L1(epsilon=100.0)):
        exact, half = (
            replace(SMALL, half=half).run(door, x, y, threat, generator=generator()) for half in (False, True)
        )
        assert [s.score for s in half] == pytest.approx([s.score for s in exact], rel=0.005)
        assert all(h.score != e.score and h.margin == e.margin for h, e in zip(half, exact, strict=True))
    hidden = nn.Sequential(Staircase(), network)
    score = replace(SMALL, half=True).run(
        Classifier(hidden), x[:1], y[:1], L2(epsilon=1.0), generator=generator()
    )[0]
    assert (score.degenerate, score.zero_gradient_share) == ("zero", 1.0)


@pytest.mark.parametrize("kind", ["cnn_relu_max", "residual_relu", "mlp_tanh"])
@pytest.mark.parametrize("threat", [Linf(epsilon=0.3), L2(epsilon=1.0), L1(epsilon=4.0)])
def test_scores_in_half_precision_agree_with_exact_ones(kind, threat):
    network = random_network(kind, 1)
    x = images(3)
    y = network(x).argmax(1)
    exact, half = (
        replace(SMALL, half=half).run(Classifier(network), x, y, threat, generator=generator())
        for half in (False, True)
    )
    assert [s.score for s in half] == pytest.approx([s.score for s in exact], rel=0.05)
    assert [s.score for s in half] != [s.score for s in exact]
    assert [s.margin for s in half] == [s.margin for s in exact]


def test_half_precision_is_left_where_terms_cancel():
    """Two large weights that nearly cancel: bfloat16 loses their difference, which is the slope."""
    flat = linear()
    with torch.no_grad():
        hidden = nn.Linear(72, 72)
        hidden.weight.copy_(1000 + 0.1 * torch.randn(72, 72, generator=generator()))
        out = nn.Linear(72, 3)
        out.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.5, -0.5]]).repeat(1, 36))
    network = nn.Sequential(flat[0], hidden, out).requires_grad_(False)
    x = images(3)
    y = network(x).argmax(1)
    door = Classifier(network)
    exact, half = (
        replace(SMALL, half=half).run(door, x, y, L2(epsilon=1.0), generator=generator())
        for half in (False, True)
    )
    assert exact == half
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        (whole,) = torch.autograd.grad((network(leaf)[:, 1] - network(leaf)[:, 0]).sum(), leaf)
    tape = HalfTape()
    with torch.no_grad(), tape:
        logits = network(tape.start(x))
    rounded = tape.gradient(logits, torch.tensor([-1.0, 1.0, 0.0]).expand(3, 3))
    assert (rounded - whole).norm() > 0.02 * whole.norm()


class Cut(nn.Module):
    """Half of its slope does not reach autograd: what the tape cannot know."""

    def __init__(self):
        super().__init__()
        self.network = linear()

    def forward(self, x):
        with torch.no_grad():
            hidden = self.network(x)
        return hidden + self.network(x)


class Joined(nn.Module):
    """Has an operation that the tape does not know."""

    def __init__(self):
        super().__init__()
        self.network = linear()

    def forward(self, x):
        return self.network(torch.cat([x[:, :1], x[:, 1:]], 1))


@pytest.mark.parametrize("network", [Cut(), Joined()])
def test_half_precision_is_left_where_the_tape_does_not_hold(network):
    x = images(3)
    y = network(x).argmax(1)
    exact, half = (
        replace(SMALL, half=half).run(Classifier(network), x, y, L2(epsilon=1.0), generator=generator())
        for half in (False, True)
    )
    assert exact == half
    assert all(score.score > 0 for score in exact)


def test_cost_is_metered():
    network = linear()
    door = Classifier(network)
    x = images(3)
    y = network(x).argmax(1)
    Clever(batches=10, samples=7).run(door, x, y, Linf(epsilon=0.1), generator=generator())
    assert door.meter.backwards == 3 * 2 * 70
    assert door.meter.forwards == 3 * 70 + 3
    door = Classifier(network)
    Clever(batches=10, samples=7, pool_factor=2).run(door, x, y, Linf(epsilon=0.1), generator=generator())
    assert door.meter.backwards == 3 * 2 * 14
    door = Classifier(network)
    Clever(batches=10, samples=7, half=True).run(door, x, y, Linf(epsilon=0.1), generator=generator())
    assert door.meter.backwards == 3 * 2 * (70 + 32)


def test_repeatable_whatever_the_batch():
    network = random_network("mlp_sigmoid", 2)
    x = images(3)
    y = network(x).argmax(1)
    clever = Clever(batches=20, samples=16)
    streams = Streams.seeded(0, torch.arange(3))
    whole = clever.run(Classifier(network), x, y, L2(epsilon=1.0), generator=streams)
    part = Streams.seeded(0, torch.tensor([2]))
    alone = Clever(batches=20, samples=16, points_at_once=1024).run(
        Classifier(network), x[2:], y[2:], L2(epsilon=1.0), generator=part
    )
    assert alone[0].score == pytest.approx(whole[2].score, rel=1e-5)


def test_wrong_predictions_and_nan():
    network = linear()
    x = images(2)
    wrong = network(x).argmin(1)
    got = SMALL.run(Classifier(network), x, wrong, Linf(epsilon=0.1), generator=generator())
    assert all(s.score == 0 and s.degenerate == "misclassified" for s in got)

    class Broken(nn.Module):
        def forward(self, x):
            return network(x) + 0 * (x.flatten(1)[:, :1] - x.flatten(1)[:, :1]).sqrt()

    got = SMALL.run(Classifier(Broken()), x, network(x).argmax(1), Linf(epsilon=0.1), generator=generator())
    assert all(math.isnan(s.score) and s.degenerate == "nonfinite" for s in got)


@pytest.mark.parametrize("field", [{"batches": 9}, {"samples": 0}, {"pool_factor": 0}])
def test_unusable_fields(field):
    with pytest.raises(UnusableInput, match=f"{next(iter(field))} is {next(iter(field.values()))}"):
        Clever(**field)


def test_staircase_hides_every_slope():
    network = nn.Sequential(Staircase(), linear())
    x = images(3)
    y = network(x).argmax(1)
    for score in SMALL.run(Classifier(network), x, y, Linf(epsilon=0.3), generator=generator()):
        assert (score.score, score.degenerate, score.zero_gradient_share) == (0.3, "zero", 1.0)


def test_ramp():
    x = torch.rand(100_000, generator=generator())
    for width in (0.5, 0.2, 0.01):
        leaf = x.clone().requires_grad_()
        out = Ramp(255, width)(leaf)
        (slope,) = torch.autograd.grad(out.sum(), leaf)
        assert (slope == 0).float().mean().item() == pytest.approx(1 - width, abs=0.01)
        assert slope.max().item() == pytest.approx(1 / width)
        assert (out - x).abs().max() <= 1 / 255 + 1e-6
    torch.testing.assert_close(Ramp(255, 1.0)(x), x)
    grid = (torch.arange(255) + 0.5) / 255
    torch.testing.assert_close(Ramp(255, 0.01)(grid), Staircase(255)(grid))
    with pytest.raises(UnusableInput, match="width of a ramp is 0"):
        Ramp(255, 0)


def test_precision_decides_whether_a_slope_is_zero():
    x = torch.full((1, 1), 0.8)
    slopes = {}
    for dtype in (torch.float32, torch.float64):
        leaf = x.clone().requires_grad_()
        (slopes[dtype],) = torch.autograd.grad(InPrecision(SaturatedSigmoid(100.0), dtype)(leaf).sum(), leaf)
    assert slopes[torch.float32] == 0
    assert 0 < slopes[torch.float64] < 1e-10


@pytest.mark.parametrize("name", ["staircase", "ramp", "sigmoid", "float32", "float64"])
def test_every_counterexample_misleads_and_is_marked(name):
    """The fragile network is linear: a straight search along its slope breaks each model inside its CLEVER score."""
    network = linear()
    model = counterexamples(network)[name]
    x = (images(8) > 0.5).float() * 0.6 + 0.2
    y = model(x).argmax(1)
    misled = 0
    for i, score in enumerate(SMALL.run(Classifier(model), x, y, Linf(epsilon=0.5), generator=generator())):
        direction = (network[1].weight[score.target] - network[1].weight[y[i]]).sign().reshape(x[i].shape)
        steps = torch.linspace(0, 0.5, 201)
        points = (x[i] + steps[:, None, None, None] * direction).clamp(0, 1)
        fooled = (model(points).argmax(1) != y[i]).nonzero()[:, 0]
        distance = float(steps[fooled[0]]) if len(fooled) else math.inf
        marked = mark(score, distance).mark
        if score.score >= distance:
            misled += 1
            assert marked == "refuted"
        if score.zero_gradient_share > 0:
            assert marked != "unrefuted"
    assert misled >= 4
