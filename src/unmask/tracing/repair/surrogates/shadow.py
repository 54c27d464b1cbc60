"""What travels beside integers and booleans, which autograd does not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Table:
    """A whole number as a function of another one, its level.

    **Fields**
    - `root`: the real-valued level, of any shape; `lowest`: the level at which the row begins.
    - `row`: `[levels]`, the number at each of them.
    """

    root: Tensor
    lowest: int
    row: Tensor


@dataclass(frozen=True)
class Shadow:
    """The differentiable companion of an integer or boolean tensor.

    **Fields**
    - `value`: float, shape of the tensor: a soft truth value, or a real-valued index.
    - `choice`: `[*shape, options]`, a soft one-hot, where the tensor came from an arg-max or a sort; else None.
    - `mask`: a soft membership over the sorted dimension, where the tensor holds the indices of a top-k; else None.
    - `bits`: soft truth values, lowest first and None for zero, of a number that was put together of them; else None.
    - `digit`: a soft truth value and its weight, where a sum of such products may be a number; else None.
    - `table`: what it is at every level of another number; None where that is not known.
    """

    value: Tensor
    choice: Tensor | None = None
    mask: Tensor | None = None
    bits: tuple[Tensor | None, ...] | None = None
    digit: tuple[Tensor, Tensor] | None = None
    table: Table | None = None


# What a rule makes: a float, a shadow, one shadow for each of several tensors, or None where it does not apply.
Made = Tensor | Shadow | list["Tensor | Shadow | None"] | None
ShadowOf = Callable[[Any], Shadow | None]


def argument(args: Sequence[Any], kwargs: dict[str, Any], position: int, name: str, default: Any) -> Any:
    """An argument of a call, by its name or its place."""
    return kwargs.get(name, args[position] if len(args) > position else default)


def place(choice: Tensor) -> Tensor:
    """The mean index `[*shape]` of a soft one-hot `[*shape, options]`."""
    return choice @ torch.arange(choice.shape[-1], device=choice.device, dtype=choice.dtype)


def chosen(choice: Tensor) -> Shadow:
    """The shadow of an index of which only the soft one-hot is known."""
    return Shadow(place(choice), choice=choice)


def hat(distance: Tensor) -> Tensor:
    """One at zero, falling to zero at one: which whole number a real-valued one is."""
    return (1 - distance.abs()).clamp_min(0)


def one_hot(shadow: Shadow, classes: int) -> Tensor:
    """The soft one-hot `[*shape, classes]` of an index, made from its value where it is not known."""
    if shadow.choice is not None and shadow.choice.shape[-1] == classes:
        return shadow.choice
    places = torch.arange(classes, device=shadow.value.device, dtype=shadow.value.dtype)
    return hat(shadow.value[..., None] - places)


def names(function: Callable[..., Any], listed: str) -> dict[str, Callable[..., Any]]:
    """One rule for several names."""
    return dict.fromkeys(listed.split(), function)
