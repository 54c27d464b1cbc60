"""Looking something up by a shadowed index."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .call import Call
from .order import SORTABLE
from .shadow import Made, Shadow, chosen, one_hot


def taken(table: Tensor, shadow: Shadow) -> Tensor | Shadow:
    """`table[index]` along the first dimension; of a table of labels, which label it is."""
    if shadow.choice is not None and shadow.choice.shape[-1] == len(table):
        labels = table.ndim == 1 and table.dtype == torch.int64
        if labels and 0 <= int(table.min()) <= int(table.max()) < SORTABLE:
            return chosen(shadow.choice @ F.one_hot(table).to(shadow.choice.dtype))
        return torch.tensordot(shadow.choice, table.to(shadow.choice.dtype), 1)
    # A real-valued index: linear interpolation between the two rows around it.
    position = shadow.value.clamp(0, len(table) - 1)
    lower = position.detach().floor().long().clamp_max(max(len(table) - 2, 0))
    upper = (lower + 1).clamp_max(len(table) - 1)
    part = (position - lower).reshape(*position.shape, *[1] * (table.ndim - 1))
    return table[lower] * (1 - part) + table[upper] * part


def item(call: Call) -> Made:
    """`table[index]`, or a shadowed table at a plain index."""
    of, index = call.args[0], call.args[1]
    shadow = call.shadow_of(index)
    if shadow is not None and index.dtype != torch.bool:
        return taken(of, shadow)
    if shadow is not None and call.shadow_of(of) is None:
        return (
            of[index] if of.is_floating_point() else None
        )  # who is chosen is a step; what they hold goes on
    if isinstance(index, tuple) and call.shadow_of(of) is None:
        return _item_of_several(call, of, index)
    shadow = call.shadow_of(of)
    if shadow is None:
        return None
    index = index if isinstance(index, tuple) else (index,)
    spelt = (*index, slice(None)) if any(i is Ellipsis for i in index) else index
    choice, bits = shadow.choice, shadow.bits
    return Shadow(
        shadow.value[call.args[1]],
        choice=None if choice is None else choice[spelt],
        bits=None if bits is None else tuple(b if b is None else b[call.args[1]] for b in bits),
    )


def _item_of_several(call: Call, of: Tensor, index: tuple[Any, ...]) -> Made:
    """`table[rows, index]`, with one shadowed index and whole numbers in the other places."""
    at = [n for n, i in enumerate(index) if isinstance(i, Tensor) and call.shadow_of(i) is not None]
    if len(at) != 1 or any(not isinstance(i, Tensor) for i in index[: at[0]]):
        return None
    shadow = call.shadow_of(index[at[0]])
    assert shadow is not None
    options = of.shape[at[0]]
    ahead = torch.stack(
        [of[(*index[: at[0]], torch.full_like(index[at[0]], k), *index[at[0] + 1 :])] for k in range(options)]
    )
    if ahead.dtype == torch.bool or not ahead.is_floating_point():
        return None
    choice = one_hot(shadow, options)
    choice = choice.movedim(-1, 0).reshape(options, *choice.shape[:-1], *[1] * (ahead.ndim - choice.ndim))
    return (ahead * choice).sum(0)


def embedding(call: Call) -> Made:
    """A row of the table for each index."""
    # `embedding(index, weight)` as a function, `embedding(weight, index)` inside torch.
    for index, table in ((0, 1), (1, 0)):
        shadow = call.shadow_of(call.args[index])
        if shadow is not None:
            return taken(call.args[table], shadow)
    return None


def index_select(call: Call) -> Made:
    """Rows along one dimension."""
    shadow, dim = call.shadow(2, "index"), call.argument(1, "dim")
    if shadow is None:
        return None
    made = taken(call.args[0].movedim(dim, 0), shadow)
    return made.movedim(0, dim) if isinstance(made, Tensor) else made


def gather(call: Call) -> Made:
    """Along one dimension: each index is a soft choice among what stands there."""
    by_name = {"take_along_dim": (1, "indices", 2)}.get(call.name, (2, "index", 1))
    shadow = call.shadow(by_name[0], by_name[1])
    dim = call.argument(by_name[2], "dim")
    table = call.plain[0]
    if shadow is None or dim is None or not table.is_floating_point():
        return None
    options = table.shape[dim]
    choice = one_hot(shadow, options)  # [*index, options]
    table = table.movedim(dim, -1)[..., None, :]
    return (choice.movedim(dim if dim >= 0 else dim - 1, -2) * table).sum(-1).movedim(-1, dim)


def distinct(call: Call) -> Made:
    """The numbers that occur: each is the mean of those that it stands for. How often they do has no slope here."""
    shadow, of = call.shadow(0, "input"), call.args[0]
    if shadow is None or call.kwargs.get("dim") is not None or not of.numel():
        return None
    made = call.func(*call.args, **call.kwargs)
    find = torch.unique_consecutive if call.name == "unique_consecutive" else torch.unique
    _, which = find(of, return_inverse=True)
    total = shadow.value.new_zeros(int(which.max()) + 1).index_add(0, which.flatten(), shadow.value.flatten())
    levels = Shadow(total / which.flatten().bincount())
    return [levels, *[None] * (len(made) - 1)] if isinstance(made, tuple) else levels


def take(call: Call) -> Made:
    """Numbers of the flattened table."""
    shadow = call.shadow(1, "index")
    return None if shadow is None else taken(call.args[0].flatten(), shadow)


def set_item(call: Call) -> Made:
    """`x[mask] = number`, or a row for each that is true: mixed, as far as the mask is true."""
    of, index, value = call.args[:3]
    mask = call.shadow_of(index)
    if mask is None or mask.value.shape != of.shape[: mask.value.ndim]:
        return None
    soft = mask.value.reshape(*mask.value.shape, *[1] * (of.ndim - mask.value.ndim))
    if isinstance(value, Tensor) and value.ndim and value.numel() > 1:
        # Nobody knows what the others would have been given.
        if index.dtype != torch.bool or value.shape != (rows := of[index]).shape:
            return None
        return of.index_put((index,), rows + (value - rows) * soft.expand(of.shape)[index])
    return of * (1 - soft) + value * soft
