"""The soft-max inside attention is seen as it is computed, and its scores can be made smaller."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unmask.tracing.attention import cooled, shares


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


Q, K, V = drawn(2, 4, 6, 8), drawn(2, 4, 7, 8, seed=1), drawn(2, 4, 7, 5, seed=2)
CALLS = {
    "plain": ((Q, K, V), {}),
    "a scale": ((Q, K, V), {"scale": 3.0}),
    "by name": ((), {"value": V, "query": Q, "key": K}),
    "causal": ((Q, K, V), {"is_causal": True}),
    "a mask": ((Q, K, V, drawn(6, 7, seed=3) > 0), {}),
    "what is added to the scores": ((Q, K, V, drawn(2, 4, 6, 7, seed=4)), {}),
    "one key for two queries": ((Q, K[:, :2], V[:, :2]), {"enable_gqa": True}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_shares_make_the_result(name):
    args, kwargs = CALLS[name]
    ((scores, shared),) = shares(F.scaled_dot_product_attention, args, kwargs)
    value = V[:, :2].repeat_interleave(2, 1) if "enable_gqa" in kwargs else V
    made = F.scaled_dot_product_attention(*args, **kwargs)
    torch.testing.assert_close(shared @ value, made)
    torch.testing.assert_close(scores.softmax(-1), shared)
    assert torch.isfinite(scores).all()


@pytest.mark.parametrize("name", CALLS)
def test_cooled_scores_are_smaller_ones(name):
    args, kwargs = CALLS[name]
    ((scores, _),) = shares(F.scaled_dot_product_attention, args, kwargs)
    value = V[:, :2].repeat_interleave(2, 1) if "enable_gqa" in kwargs else V
    made = cooled(F.scaled_dot_product_attention, 0.3, args, kwargs)
    torch.testing.assert_close((0.3 * scores).softmax(-1) @ value, made)


@pytest.mark.parametrize("weights", [True, False])
def test_a_layer_of_several_heads_is_looked_into(weights):
    layer, x = nn.MultiheadAttention(8, 2), drawn(40, 3, 8)
    func, plain, soft = F.multi_head_attention_forward, F.scaled_dot_product_attention, F.softmax
    args = (x, x, x, 8, 2, layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.5)
    args = (*args, layer.out_proj.weight, layer.out_proj.bias)
    state = torch.get_rng_state()
    ((scores, shared),) = shares(func, args, {"need_weights": weights})
    assert bool((torch.get_rng_state() == state).all())  # its dropout drew, and what it drew is put back
    assert shared.shape[-2:] == (16, 40)  # of forty queries sixteen
    torch.testing.assert_close(scores.softmax(-1), shared)
    made = cooled(func, 0.0, (*args[:10], 0.0, *args[11:]), {"need_weights": weights})
    # All keys count alike, so that every query gets the same.
    torch.testing.assert_close(made[0], made[0][:1].expand_as(made[0]))
    assert (F.scaled_dot_product_attention, F.softmax) == (plain, soft)


def test_what_has_no_scores_of_its_own_is_left_alone():
    ragged = torch.nested.nested_tensor([drawn(2, 3, 8), drawn(2, 5, 8)], layout=torch.jagged)
    assert shares(F.scaled_dot_product_attention, (ragged, ragged, ragged), {}) == []
