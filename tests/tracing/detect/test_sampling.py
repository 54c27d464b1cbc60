"""Draws by the input itself: the only way for the gradient, or one beside another."""

import pytest
import torch
import torch.nn.functional as F
from tests.tracing.named import named
from tests.tracing.networks import Wrapped
from tests.tracing.test_analyse import images, suspects

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


def photons(x):
    hits = torch.multinomial(x, 400, replacement=True)
    return F.one_hot(hits, 16).sum(1) / 25


def scattered(x):
    hits = torch.distributions.Categorical(x).sample((400,)).mT
    return torch.zeros_like(x).scatter_add(1, hits, torch.ones(hits.shape)) / 25


def fired(x):
    return (torch.rand(8, *x.shape) < x).float().mean(0)


DRAWS = {
    "a rate": (lambda x: torch.poisson(20 * x) / 20, "zero", "torch.poisson"),
    "places, counted": (photons, "discrete", "torch.multinomial"),
    "places, added up": (scattered, "discrete", "torch.multinomial"),
    "coins": (fired, "discrete", "torch.lt"),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_from_the_input_itself_loses_its_gradient_and_gets_that_of_its_mean(name):
    how, symptom, operation = DRAWS[name]
    network = Wrapped(how)
    analysis = suspects(network)
    named = {(s.symptom.name, s.operation) for s in analysis.suspects}
    assert (symptom, operation) in named
    assert "random" in {found for found, _ in named}
    x = images().requires_grad_()
    flat = x.flatten(1)
    means = network.read_out(16 * flat / flat.sum(1, keepdim=True) if "places" in name else flat)
    (true,) = torch.autograd.grad(means.square().sum(), x)
    best = 0.0
    for repair in propose(analysis):
        torch.manual_seed(0)
        draws = [Rewritten(network, repair.rewrite)(x).square().sum() for _ in range(20)]
        (grad,) = torch.autograd.grad(sum(draws), x)
        best = max(best, float(F.cosine_similarity(grad.flatten(), true.flatten(), dim=0)))
    assert best > 0.8


def louder(x):
    return fired(x) * (0.7 + x.mean(1, keepdim=True))


def exposed(x):
    hits = torch.multinomial(x, 400, replacement=True)
    return F.one_hot(hits, 16).sum(1) * (x.sum(1, keepdim=True) / 400)


def sampled(x):
    return torch.distributions.Bernoulli(x).sample() + 0.1 * x.mean(1, keepdim=True)


def brightened(x):
    return torch.poisson(20 * x) / 20 * (x.amax(1, keepdim=True) + x.amin(1, keepdim=True))


def detached(x):
    return (torch.rand(8, *x.shape) < x.detach()).float().mean(0) * (0.7 + x.mean(1, keepdim=True))


def without_graph(x):
    with torch.no_grad():
        spikes = torch.poisson(x * 20) / 20
    return spikes * (0.7 + x.mean(1, keepdim=True))


def by_cumulative_sums(x):
    total = x.sum(1, keepdim=True)
    at = torch.searchsorted(x.cumsum(1) / total, torch.rand(len(x), 400)).clamp_max(15)
    return F.one_hot(at, 16).sum(1) * (total / 400)


BESIDE = {
    louder: "torch.lt",
    exposed: "torch.multinomial",
    sampled: "torch.bernoulli",
    brightened: "torch.poisson",
    detached: "torch.lt",
    by_cumulative_sums: "torch.searchsorted",
    without_graph: "torch.poisson",
}


@pytest.mark.parametrize("how", BESIDE, ids=lambda how: how.__name__)
def test_a_draw_from_the_input_beside_another_way_is_an_offer_that_goes_where_its_mean_goes(how):
    network = Wrapped(how)
    analysis = suspects(network)
    (offer,) = analysis.where(*named("drawn"))
    assert {s.symptom.name for s in analysis.suspects} == {"drawn", "random"}
    assert offer.operation == BESIDE[how]
    x = images().requires_grad_()
    means = {
        louder: lambda flat: flat * (0.7 + flat.mean(1, keepdim=True)),
        exposed: lambda flat: flat,
        sampled: lambda flat: flat + 0.1 * flat.mean(1, keepdim=True),
        brightened: lambda flat: flat * (flat.amax(1, keepdim=True) + flat.amin(1, keepdim=True)),
    }
    means |= dict.fromkeys((detached, without_graph), means[louder])
    means[by_cumulative_sums] = means[exposed]
    (true,) = torch.autograd.grad(network.read_out(means[how](x.flatten(1)))[:, 0].sum(), x)

    def cosine(forward):
        torch.manual_seed(0)
        (grad,) = torch.autograd.grad(sum(forward(x)[:, 0].sum() for _ in range(20)), x)
        return float(F.cosine_similarity(grad.flatten(), true.flatten(), dim=0))

    repairs = {r.name: r for r in propose(analysis)}
    assert set(repairs) == {"through draws", "through draws, identity"}
    assert all(offer.group in r.at for r in repairs.values())
    assert max(cosine(Rewritten(network, r.rewrite)) for r in repairs.values()) > 0.8
    assert cosine(network) < 0.5


@pytest.mark.parametrize(
    "of", [lambda x: x.detach(), lambda x: x.tanh().detach() / 2], ids=["itself", "made of it"]
)
def test_a_mask_that_the_users_own_detach_steers_is_no_offer(of):
    for masked in (
        lambda x: torch.bernoulli(of(x)) * x + x,
        lambda x: torch.where(torch.rand_like(x) < of(x), x, 0.1 * x),
    ):
        assert {s.symptom.name for s in suspects(Wrapped(masked)).suspects} == {"random"}
