"""Smooth surrogates for what asks about order: the largest, a sort, a rank, the most frequent.

The values that such operations hand out have a gradient of their own; the indices get a soft one-hot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .shadow import Shadow, argument, chosen, place

Args = tuple[Any, ...]
Named = dict[str, Any]

# Largest number of places times options for which a sort is softened. Ours: it is held in memory for each example.
SORTABLE = 2**16


def arg_extreme(sign: int) -> Callable[[float, Args, Named], Shadow]:
    """The place of the largest (`sign` 1) or smallest (-1) along a dimension; of zeros and ones, the first one."""

    def soft(width: float, args: Args, kwargs: Named) -> Shadow:
        scores = sign * args[0]
        if zeros_and_ones(args[0]):
            return first_extreme(sign, args[0], args, kwargs)
        return chosen(_along(lambda s: torch.softmax(s / width, -1), scores, args, kwargs))

    return soft


def first_extreme(sign: int, truths: Tensor, args: Args, kwargs: Named) -> Shadow:
    """The first of truth values that is true (`sign` 1) or false (-1), the first of all where there is none."""

    def first(truths: Tensor) -> Tensor:
        none_before = (1 - truths).cumprod(-1)
        found = torch.cat([truths[..., :1], truths[..., 1:] * none_before[..., :-1]], -1)
        return torch.cat([found[..., :1] + none_before[..., -1:], found[..., 1:]], -1)

    return chosen(_along(first, truths if sign > 0 else 1 - truths, args, kwargs))


def zeros_and_ones(values: Tensor) -> bool:
    """Whether numbers are truth values, with as many of the largest as there are true ones."""
    return bool(((values == 0) | (values == 1)).all())


def _along(choose: Callable[[Tensor], Tensor], scores: Tensor, args: Args, kwargs: Named) -> Tensor:
    """A soft choice along the dimension that was asked for, `[*shape of the index, options]`."""
    dim = argument(args, kwargs, 1, "dim", None)
    scores, dim = (scores.flatten(), 0) if dim is None else (scores, dim)
    choice = choose(scores.movedim(dim, -1))
    return (
        choice.unsqueeze(dim if dim >= 0 else dim - 1)
        if argument(args, kwargs, 2, "keepdim", False)
        else choice
    )


def extreme(sign: int) -> Callable[[float, Args, Named], Shadow | None]:
    """The indices of `max` and `min` along a dimension; a maximum of everything, or of two tensors, has a gradient."""
    place_of = arg_extreme(sign)

    def soft(width: float, args: Args, kwargs: Named) -> Shadow | None:
        dim = argument(args, kwargs, 1, "dim", None)
        return place_of(width, args, kwargs) if isinstance(dim, int) else None

    return soft


def soft_order(scores: Tensor, ordered: Tensor, dim: int, width: float) -> Tensor | None:
    """Which option stands at each place of an order, `[*shape of the order, options]`, soft: the nearer, the likelier.

    **Source**: Prillo & Eisenschlos 2020, arXiv:2006.16038.
    """
    scores, ordered = scores.movedim(dim, -1), ordered.movedim(dim, -1)
    if scores.shape[-1] * ordered.shape[-1] > SORTABLE:
        return None
    distance = (ordered[..., :, None] - scores[..., None, :]).abs()
    return torch.softmax(-distance / width, -1).movedim(-2, dim if dim >= 0 else dim - 1)


def sort(width: float, args: Args, kwargs: Named) -> Shadow | None:
    """The order of everything along a dimension."""
    scores, dim = args[0], argument(args, kwargs, 1, "dim", kwargs.get("dim", -1))
    dim = -1 if isinstance(dim, bool) else dim
    descending = argument(args, kwargs, 2, "descending", False)
    choice = soft_order(scores, scores.sort(dim, descending=descending).values, dim, width)
    return None if choice is None else chosen(choice)


def topk(width: float, args: Args, kwargs: Named) -> Shadow:
    """The places of the k largest or smallest, and who belongs to them."""
    scores = args[0]
    k = argument(args, kwargs, 1, "k", 1)
    dim = argument(args, kwargs, 2, "dim", -1)
    largest = argument(args, kwargs, 3, "largest", True)
    sign = 1 if largest else -1
    ordered = (sign * scores).sort(dim, descending=True).values
    last = ordered.narrow(dim, k - 1, 1)
    beyond = ordered.narrow(dim, min(k, ordered.shape[dim] - 1), 1)
    threshold = ((last + beyond) / 2).detach()
    mask = torch.sigmoid((sign * scores - threshold) / width)
    kept = scores.topk(k, dim, largest=largest).indices
    choice = soft_order(scores, sign * ordered.narrow(dim, 0, k), dim, width)
    return Shadow(kept.to(scores.dtype) if choice is None else place(choice), choice=choice, mask=mask)


def kth_value(width: float, args: Args, kwargs: Named) -> Shadow | None:
    """The place of the k-th smallest."""
    scores, k = args[0], argument(args, kwargs, 1, "k", 1)
    dim, keep = argument(args, kwargs, 2, "dim", -1), argument(args, kwargs, 3, "keepdim", False)
    return _one_place(scores, scores.sort(dim).values.narrow(dim, k - 1, 1), dim, keep, width)


def median(width: float, args: Args, kwargs: Named) -> Shadow | None:
    """The place of the lower median; along no dimension it gives a value only, which has a gradient."""
    scores, dim = args[0], argument(args, kwargs, 1, "dim", None)
    if dim is None:
        return None
    middle = scores.median(dim, keepdim=True).values
    return _one_place(scores, middle, dim, argument(args, kwargs, 2, "keepdim", False), width)


def mode(width: float, args: Args, kwargs: Named) -> Shadow | None:
    """The place of the most frequent float."""
    scores, dim = args[0], argument(args, kwargs, 1, "dim", -1)
    frequent = scores.mode(dim, keepdim=True).values
    return _one_place(scores, frequent, dim, argument(args, kwargs, 2, "keepdim", False), width)


def running_extreme(sign: int) -> Callable[[float, Args, Named], Shadow | None]:
    """At each place, which of those so far is the largest or smallest."""

    def soft(width: float, args: Args, kwargs: Named) -> Shadow | None:
        dim = argument(args, kwargs, 1, "dim", -1)
        scores = (sign * args[0]).movedim(dim, -1)
        length = scores.shape[-1]
        if length * length > SORTABLE:
            return None
        later = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
        spread = (scores / width)[..., None, :].expand(*scores.shape, length)
        choice = spread.masked_fill(later, -torch.inf).softmax(-1)
        return chosen(choice.movedim(-2, dim if dim >= 0 else dim - 1))

    return soft


def _one_place(scores: Tensor, value: Tensor, dim: int, keep: bool, width: float) -> Shadow | None:
    choice = soft_order(scores, value, dim, width)
    if choice is None:
        return None
    return chosen(choice if keep else choice.squeeze(dim if dim >= 0 else dim - 1))
