"""Attention whose soft-max is saturated, in its spellings: named at the user's line, and repaired."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tests.tracing.idioms import Network
from tests.tracing.test_analyse import images, suspects
from torch import nn

from unmask.tracing.repair.propose import propose
from unmask.tracing.repair.rewrite import Rewritten


def drawn(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


WEIGHTS, PLACES = [drawn(8, 8, seed=n) for n in range(3)], drawn(4, 4, seed=9)
LAYER = nn.MultiheadAttention(8, 2, batch_first=True)
ENCODER = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
for part in (LAYER, ENCODER.self_attn):
    with torch.no_grad():
        part.in_proj_weight.copy_(drawn(24, 8, seed=4) * 5)
        part.out_proj.weight.copy_(drawn(8, 8, seed=5))


def tokens(x):
    """Rows of the image beside a place each, `[batch, 4, 8]`."""
    return torch.cat([x.reshape(-1, 4, 4) * 2 - 1, PLACES.expand(len(x), 4, 4)], 2)


def rows(x):
    return [tokens(x) @ w for w in WEIGHTS]


def fused(net, x):
    q, k, v = rows(x)
    return F.scaled_dot_product_attention(q, k, v, scale=200.0)


def sharp_queries(net, x):
    q, k, v = rows(x)
    return F.scaled_dot_product_attention(400 * q, k, v)


def masked(net, x):
    q, k, v = rows(x)
    return F.scaled_dot_product_attention(q, k, v, torch.ones(4, 4).tril().bool(), scale=200.0)


def scores_in_the_mask(net, x):
    q, k, v = rows(x)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=200 * (q @ k.transpose(1, 2)), scale=1.0)


def keys_that_are_stored(net, x):
    q, k, v = rows(x)[0], drawn(6, 8, seed=21), drawn(6, 8, seed=22)
    return F.scaled_dot_product_attention(q, k.expand(len(x), 6, 8), v.expand(len(x), 6, 8), scale=100.0)


def layer(net, x):
    return LAYER(tokens(x), tokens(x), tokens(x), need_weights=False)[0]


def layer_with_weights(net, x):
    return LAYER(tokens(x), tokens(x), tokens(x), average_attn_weights=False)[0]


def encoder_layer(net, x):
    return ENCODER(tokens(x))


def by_soft_max(net, x):
    q, k, v = rows(x)
    return torch.einsum("bqd,bkd->bqk", q, k).mul(200).softmax(-1) @ v


def by_exp(net, x):
    q, k, v = rows(x)
    scores = q @ k.transpose(1, 2) * 200
    parts = torch.exp(scores - scores.amax(-1, keepdim=True))
    return parts / parts.sum(-1, keepdim=True) @ v


def by_log_sum_exp(net, x):
    q, k, v = rows(x)
    scores = q @ k.transpose(1, 2) * 200
    return torch.exp(scores - torch.logsumexp(scores, -1, keepdim=True)) @ v


SPELLINGS = {
    fused: "k, v, scale=200.0)",
    sharp_queries: "400 * q, k, v)",
    masked: "tril().bool(), scale",
    scores_in_the_mask: "attn_mask=200",
    keys_that_are_stored: "k.expand(len(x), 6, 8)",
    layer: "need_weights=False)[0]",
    layer_with_weights: "average_attn_weights=False)[0]",
    encoder_layer: "return ENCODER(",
    by_soft_max: ".softmax(-1) @ v",
    by_exp: "torch.exp(scores - scores.amax",
    by_log_sum_exp: "torch.exp(scores - torch.logsumexp",
}


def attended(step):
    return Network(lambda net, x: step(net, x)[..., :4].flatten(1)).eval()


def left(network, gradient_of, y):
    """Share of the images that sign steps leave right."""
    x = images(16)
    z, right = x, torch.ones(len(x), dtype=torch.bool)
    for _ in range(6):
        z = z.detach().requires_grad_()
        logits = gradient_of(z)
        true = logits.gather(1, y[:, None])[:, 0]
        rival = logits.scatter(1, y[:, None], -torch.inf).amax(1)
        (slope,) = torch.autograd.grad((rival - true).sum(), z)
        z = (z + 0.05 * slope.sign()).clamp(x - 0.2, x + 0.2).clamp(0, 1)
        with torch.no_grad():
            right &= network(z).argmax(1) == y
    return float(right.float().mean())


@pytest.mark.parametrize("step", SPELLINGS, ids=lambda step: step.__name__)
def test_it_is_named_at_its_line_and_a_repair_leads_further(step):
    network = attended(step)
    analysis = suspects(network)
    lines = Path(__file__).read_text().splitlines()
    named = {lines[s.site.line - 1] for s in analysis.suspects if s.symptom.name in ("saturated", "vanished")}
    assert any(SPELLINGS[step] in line for line in named), named
    with torch.no_grad():
        y = network(images(16)).argmax(1)
    repaired = min(left(network, Rewritten(network, r.rewrite), y) for r in propose(analysis))
    assert repaired <= left(network, network, y) - 0.1


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_attention_that_has_a_slope_is_not_named(scale):
    def soft(net, x):
        q, k, v = rows(x)
        return F.scaled_dot_product_attention(q, k, v, scale=scale)

    assert not suspects(attended(soft)).suspects
