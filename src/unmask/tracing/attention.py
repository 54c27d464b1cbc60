"""The soft-max inside attention: torch computes it within one operation, where nobody sees its scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .intercept.draws import random_state_for, set_random_state
from .intercept.operations import tensors_in

ATTENTION = frozenset(("scaled_dot_product_attention", "multi_head_attention_forward"))
# Queries of each head that are looked at. Ours.
QUERIES = 16

Attention = Callable[..., Any]


def shares(func: Attention, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Scores and shares, `[…, queries, keys]` each, of the soft-maxes in one call; of many queries, some.

    What is masked has the lowest number there is for a score.

    **Cost**: the call once more, without gradient; no random number is drawn by it.
    """
    found: list[tuple[Tensor, Tensor]] = []
    if any(type(t) not in (Tensor, nn.Parameter) or t.is_nested for t in tensors_in((args, kwargs))):
        return found  # they may know no more than the call itself
    plain, soft = functional.scaled_dot_product_attention, functional.softmax

    def attended(*args: Any, **kwargs: Any) -> Tensor:
        scores = _scores(*args, **kwargs)
        found.append((scores, scores.softmax(-1)))
        return plain(*args, **kwargs)

    def shared(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        made = soft(scores, *args, **kwargs)
        some = scores[..., _some(scores.shape[-2]), :]
        found.append((some.clamp_min(torch.finfo(some.dtype).min), made[..., _some(made.shape[-2]), :]))
        return made

    state = random_state_for("torch", args, kwargs)
    try:
        with torch.no_grad(), _inside(attended, shared):
            _alone(func)(*args, **kwargs)
    finally:
        set_random_state(state)
    return found


def cooled(func: Attention, gain: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The same call with scores `gain` times as large; several results as a list."""
    plain, soft = functional.scaled_dot_product_attention, functional.softmax

    def attended(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *more: Any, **named: Any
    ) -> Tensor:
        if attn_mask is not None and attn_mask.is_floating_point():  # it is added to the scores
            attn_mask = attn_mask * gain
        return plain(query * gain, key, value, attn_mask, *more, **named)

    def shared(scores: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return soft(scores * gain, *args, **kwargs)

    with _inside(attended, shared):
        made = _alone(func)(*args, **kwargs)
    return list(made) if isinstance(made, tuple) else made


def _alone(func: Attention) -> Attention:
    alone = func.__name__ == "scaled_dot_product_attention"
    return functional.scaled_dot_product_attention if alone else func


@contextmanager
def _inside(attended: Attention, shared: Attention) -> Iterator[None]:
    """What `multi_head_attention_forward` calls, exchanged."""
    before = functional.scaled_dot_product_attention, functional.softmax
    functional.scaled_dot_product_attention, functional.softmax = attended, shared  # pyright: ignore
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.softmax = before


def _scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """What the soft-max of `scaled_dot_product_attention` is given, of some queries."""
    count, size = query.shape[-2:]
    some = _some(count)
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    scores = query[..., some, :] @ key.transpose(-2, -1) * (size**-0.5 if scale is None else scale)
    lowest = torch.finfo(scores.dtype).min
    if is_causal:
        attn_mask = torch.ones(count, key.shape[-2], dtype=torch.bool, device=query.device).tril()
    if attn_mask is None:
        return scores
    mask = attn_mask.expand(*attn_mask.shape[:-2], count, attn_mask.shape[-1])[..., some, :]
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, lowest)
    return (scores + mask).clamp_min(lowest)


def _some(count: int) -> Tensor:
    return torch.linspace(0, count - 1, min(count, QUERIES)).long()
