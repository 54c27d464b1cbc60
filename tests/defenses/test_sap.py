"""SAP beside the formulas of the paper, and its two samplers beside each other."""

import math

import pytest
import torch
from scipy.stats import chisquare

from unmask.classifier import Classifier
from unmask.defenses import SAP
from unmask.defenses.sap import Pruning, multinomial_counts, survival
from unmask.errors import UnusableInput
from unmask.zoo import CNN

DRAWS = 20_000


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        yield


def activations(width=40):
    h = torch.relu(torch.randn(1, width)) * torch.linspace(0.01, 3, width)
    h[0, 3] = -1.5  # not only rectified ones
    return h


def probabilities(h):
    return h.abs() / h.abs().sum(1, keepdim=True)


@pytest.mark.parametrize("p", [1e-9, 1e-6, 1e-3, 0.2, 1.0])
@pytest.mark.parametrize("r", [1, 7, 16384])
def test_survival_is_the_formula_in_double_precision(p, r):
    exact = -math.expm1(r * math.log1p(-p)) if p < 1 else 1.0
    # float32 has no value between 1 - 2^-24 and 1: one draw then misses a certain neuron once in 2^24
    assert float(survival(torch.tensor([[p]]), r)) == pytest.approx(exact, rel=2e-6)


@pytest.mark.parametrize("r", [3, 40, 400])
def test_counts_are_multinomial(r):
    p = probabilities(activations())
    counts = multinomial_counts(p.expand(DRAWS, -1), r)
    assert (counts.sum(1) == r).all()  # exactly r draws, not about r
    assert (counts[:, p[0] == 0] == 0).all()
    alive = p[0] > 0
    total, expected = counts.sum(0)[alive].double(), DRAWS * r * p[0, alive].double()
    assert chisquare(total, expected / expected.sum() * total.sum()).pvalue > 1e-3
    mean, variance = r * p[0], r * p[0] * (1 - p[0])
    torch.testing.assert_close(counts.double().var(0), variance.double(), rtol=0.08, atol=2e-3)
    # The draws compete: any two neurons' counts have covariance -r p_i p_j, which independent ones would not.
    i, j = p[0].topk(2).indices
    pair = torch.stack([i, j])
    both = counts[:, pair].double() - mean[pair]
    assert float((both[:, 0] * both[:, 1]).mean()) == pytest.approx(float(-r * p[0, i] * p[0, j]), rel=0.3)


def test_counts_agree_with_torchs_own_multinomial():
    p = probabilities(activations(12))
    ours = multinomial_counts(p.expand(DRAWS, -1), 12)
    drawn = torch.multinomial(p.expand(DRAWS, -1), 12, replacement=True)
    theirs = torch.zeros(DRAWS, 12, dtype=torch.int64).scatter_add_(1, drawn, torch.ones_like(drawn))
    distinct = [float((counts > 0).sum(1).double().mean()) for counts in (ours, theirs)]
    spread = [float((counts > 0).sum(1).double().var()) for counts in (ours, theirs)]
    assert distinct[0] == pytest.approx(distinct[1], abs=0.05)  # standard error 0.01
    assert spread[0] == pytest.approx(spread[1], rel=0.05)


@pytest.mark.parametrize("sampler", ["multinomial", "bernoulli"])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_keep_probability_mean_and_variance_follow_the_formula(sampler, ratio):
    h = activations()
    q = survival(probabilities(h), round(ratio * 40))
    out = Pruning(ratio, sampler)(h.expand(DRAWS, -1))
    kept = (out != 0).double().mean(0)
    error = (q * (1 - q) / DRAWS).sqrt().double().clamp_min(1e-12)
    alive = h[0] != 0
    assert ((kept - q[0]).abs() <= 4.5 * error[0])[alive].all()
    assert (out[:, ~alive] == 0).all()
    values = h / q
    assert torch.where(out != 0, (out - values).abs() < 1e-4 * values.abs(), True).all()
    variance = (h**2 * (1 - q) / q)[0].double()
    mean_error = (variance / DRAWS).sqrt()
    assert ((out.double().mean(0) - h[0]).abs() <= 4.5 * mean_error + 1e-6)[alive].all()  # E = h
    typical = ((q > 0.1) & (q < 0.9))[0]  # the variance of rarer events would need more draws
    torch.testing.assert_close(out.double().var(0)[typical], variance[typical], rtol=0.15, atol=1e-4)


def test_the_samplers_differ_in_competition_only():
    h = activations()
    out = {s: Pruning(1.0, s)(h.expand(DRAWS, -1)) != 0 for s in ("multinomial", "bernoulli")}
    kept = {s: o.double().sum(1) for s, o in out.items()}
    q = survival(probabilities(h), 40)
    for k in kept.values():
        assert float(k.mean()) == pytest.approx(float(q.sum()), abs=0.06)
    # Independent neurons: variance sum q (1 - q). With replacement they compete, and the number kept varies less.
    independent = float((q * (1 - q)).sum())
    assert float(kept["bernoulli"].var()) == pytest.approx(independent, rel=0.06)
    assert float(kept["multinomial"].var()) < 0.87 * independent


def test_an_examples_probabilities_are_its_own():
    h = torch.cat([activations(), 100 * activations(), torch.zeros(1, 40)])
    out = Pruning(1.0, "multinomial")(h.repeat(200, 1)).view(200, 3, 40)
    assert (out[:, 2] == 0).all()
    assert torch.isfinite(out).all()
    assert float((out[:, 0] != 0).double().mean()) == pytest.approx(
        float((out[:, 1] != 0).double().mean()), abs=0.1
    )


def test_gradient_is_masked_where_p_is_small_and_finite_everywhere():
    h = torch.cat([activations(), torch.zeros(1, 40), torch.eye(1, 40)]).requires_grad_()
    out = Pruning(1.0, "bernoulli")(h)
    (grad,) = torch.autograd.grad(out.sum(), h)
    assert torch.isfinite(grad).all()
    # h / q(p) tends to sum abs(h) / r: a small neuron's own slope is (1 - something) of order r p.
    wide = torch.full((1, 10_000), 1.0, requires_grad=True)
    pruned = Pruning(0.01, "bernoulli")(wide)
    keep = pruned[0] != 0
    (grad,) = torch.autograd.grad(pruned[0, keep][0], wide)
    assert float(grad[0, keep][0].abs()) < 0.01 * float(pruned.detach()[0, keep][0])


def test_wrapped_classifier():
    network = CNN(8).eval()
    x = torch.rand(4, 1, 8, 8)
    plain = Classifier(network, deterministic=True)
    before = network(x)
    defended = SAP(passes=64).wrap(plain)
    assert defended.passes == 64
    assert not defended.deterministic
    assert defended.surrogate is network
    assert not defended.network.training  # type: ignore[union-attr]
    one, two = (defended(x, generator=torch.Generator().manual_seed(s)).logits for s in (0, 1))
    again = defended(x, generator=torch.Generator().manual_seed(0)).logits
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    torch.testing.assert_close(network(x), before)  # the network given is untouched
    assert plain.meter is defended.meter


def test_with_many_draws_nothing_is_pruned():
    network = CNN(8).eval()
    x = torch.rand(4, 1, 8, 8)
    for sampler in ("multinomial", "bernoulli"):
        defended = SAP(ratio=3000.0, sampler=sampler, passes=1).wrap(Classifier(network))
        logits = defended(x, generator=torch.Generator().manual_seed(0)).logits
        torch.testing.assert_close(logits, network(x), rtol=5e-3, atol=5e-3)


def test_bad_fields_are_named():
    with pytest.raises(UnusableInput, match="ratio=0"):
        SAP(ratio=0)
    with pytest.raises(UnusableInput, match="sampler='gauss'"):
        SAP(sampler="gauss")  # type: ignore[arg-type]
