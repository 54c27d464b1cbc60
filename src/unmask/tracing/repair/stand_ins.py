"""Smooth stand-ins for operations whose derivative is zero or does not exist, by name.

Every function takes the operation's own arguments plus a `width` in the units of its input: over about that width a
step is smeared out. Results are float; where the operation itself gives integers or booleans, the result is the
*shadow* that travels beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Shadow:
    """The differentiable companion of an integer or boolean tensor.

    **Fields**
    - `value`: float, shape of the tensor: a soft truth value, or a real-valued index.
    - `choice`: `[*shape, options]`, a soft one-hot, where the tensor came from an arg-max or a sort; else None.
    - `mask`: a soft membership over the sorted dimension, where the tensor holds the indices of a top-k; else None.
    """

    value: Tensor
    choice: Tensor | None = None
    mask: Tensor | None = None


def _difference(args: tuple[Any, ...]) -> Tensor:
    return args[0] - args[1]


def _greater(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    return Shadow(torch.sigmoid(_difference(args) / width))


def _less(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    return Shadow(torch.sigmoid(-_difference(args) / width))


def _equal(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    return Shadow((1 - _difference(args).abs() / width).clamp_min(0))


def _unequal(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    return Shadow((_difference(args).abs() / width).clamp_max(1))


def _sign(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return torch.tanh(args[0] / width)


def _heaviside(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return torch.sigmoid(args[0] / width)


def _itself(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0]


def _level(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] * 0  # a sawtooth goes up and down by the same amount


def _quotient(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return args[0] / args[1]


def _cast(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    # Truncation: between two integers the index is half a step behind. Values that are whole already stay.
    a = args[0]
    whole = bool((a == a.round()).all())
    to_float = any(d in (torch.float16, torch.bfloat16) for d in (*args[1:], *kwargs.values()))
    return Shadow(a if whole or to_float else a - 0.5)


def _argument(args: Sequence[Any], kwargs: dict[str, Any], position: int, name: str, default: Any) -> Any:
    return kwargs.get(name, args[position] if len(args) > position else default)


def _arg_extreme(sign: int) -> Callable[..., Shadow]:
    def soft(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
        scores = sign * args[0]
        dim = _argument(args, kwargs, 1, "dim", None)
        if dim is None:
            scores, dim = scores.flatten(), 0
        choice = torch.softmax(scores / width, dim).movedim(dim, -1)
        place = torch.arange(choice.shape[-1], device=choice.device, dtype=choice.dtype)
        if _argument(args, kwargs, 2, "keepdim", False):
            choice = choice.unsqueeze(dim if dim >= 0 else dim - 1)
        return Shadow(choice @ place, choice=choice)

    return soft


# Largest number of places times options for which a sort is softened. Ours: it is held in memory for each example.
SORTABLE = 2**16


def _soft_order(scores: Tensor, ordered: Tensor, dim: int, width: float) -> Tensor | None:
    """Which option stands at each place of an order, `[*shape of the order, options]`, soft: the nearer, the likelier.

    **Source**: Prillo & Eisenschlos 2020, arXiv:2006.16038.
    """
    scores, ordered = scores.movedim(dim, -1), ordered.movedim(dim, -1)
    if scores.shape[-1] * ordered.shape[-1] > SORTABLE:
        return None
    distance = (ordered[..., :, None] - scores[..., None, :]).abs()
    return torch.softmax(-distance / width, -1).movedim(-2, dim if dim >= 0 else dim - 1)


def _place(choice: Tensor) -> Tensor:
    return choice @ torch.arange(choice.shape[-1], device=choice.device, dtype=choice.dtype)


def _sort(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow | None:
    scores, dim = args[0], _argument(args, kwargs, 1, "dim", -1)
    descending = _argument(args, kwargs, 2, "descending", False)
    choice = _soft_order(scores, scores.sort(dim, descending=descending).values, dim, width)
    return None if choice is None else Shadow(_place(choice), choice=choice)


def _topk(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    scores = args[0]
    k = _argument(args, kwargs, 1, "k", 1)
    dim = _argument(args, kwargs, 2, "dim", -1)
    largest = _argument(args, kwargs, 3, "largest", True)
    ordered = (scores if largest else -scores).sort(dim, descending=True).values
    last = ordered.narrow(dim, k - 1, 1)
    beyond = ordered.narrow(dim, min(k, ordered.shape[dim] - 1), 1)
    threshold = ((last + beyond) / 2).detach()
    mask = torch.sigmoid(((scores if largest else -scores) - threshold) / width)
    kept = scores.topk(k, dim, largest=largest).indices
    choice = _soft_order(
        scores, ordered.narrow(dim, 0, k) if largest else -ordered.narrow(dim, 0, k), dim, width
    )
    return Shadow(kept.to(scores.dtype) if choice is None else _place(choice), choice=choice, mask=mask)


def _bucketize(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    x, edges = args[0], args[1]
    return Shadow(torch.sigmoid((x[..., None] - edges) / width).sum(-1))


def _searchsorted(width: float, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shadow:
    return _bucketize(width, (args[1], args[0]), kwargs)


def _names(function: Callable[..., Any], names: str) -> dict[str, Callable[..., Any]]:
    return dict.fromkeys(names.split(), function)


# By `op_name`, without a trailing underscore: in-place forms share their surrogate.
SMOOTH: dict[str, Callable[[float, tuple[Any, ...], dict[str, Any]], Tensor | Shadow | None]] = {
    **_names(_greater, "gt ge greater greater_equal __gt__ __ge__"),
    **_names(_less, "lt le less less_equal __lt__ __le__"),
    **_names(_equal, "eq __eq__ isclose"),
    **_names(_unequal, "ne not_equal __ne__"),
    **_names(_sign, "sign sgn"),
    **_names(_heaviside, "heaviside"),
    **_names(_itself, "round floor ceil trunc fix detach data clone tensor as_tensor"),
    **_names(_level, "remainder fmod frac __mod__"),
    **_names(_quotient, "floor_divide __floordiv__ div divide __rfloordiv__"),
    **_names(_cast, "to long int byte short char type type_as bool half bfloat16"),
    **_names(_arg_extreme(1), "argmax max"),
    **_names(_arg_extreme(-1), "argmin min"),
    **_names(_topk, "topk"),
    **_names(_sort, "argsort sort"),
    **_names(_bucketize, "bucketize"),
    **_names(_searchsorted, "searchsorted"),
}


# --- what shadows become when an operation uses their tensors ------------------------------------------------------


def _take(table: Tensor, shadow: Shadow) -> Tensor | Shadow:
    """`table[index]` along the first dimension; of a table of labels, which label it is."""
    if shadow.choice is not None and shadow.choice.shape[-1] == len(table):
        if (
            table.ndim == 1
            and table.dtype == torch.int64
            and 0 <= int(table.min()) <= int(table.max()) < SORTABLE
        ):
            choice = shadow.choice @ functional.one_hot(table).to(shadow.choice.dtype)
            return Shadow(_place(choice), choice=choice)
        return torch.tensordot(shadow.choice, table.to(shadow.choice.dtype), 1)
    # A real-valued index: linear interpolation between the two rows around it.
    position = shadow.value.clamp(0, len(table) - 1)
    lower = position.detach().floor().long().clamp_max(max(len(table) - 2, 0))
    upper = (lower + 1).clamp_max(len(table) - 1)
    part = (position - lower).reshape(*position.shape, *[1] * (table.ndim - 1))
    return table[lower] * (1 - part) + table[upper] * part


def _one_hot(shadow: Shadow, classes: int) -> Tensor:
    if shadow.choice is not None and shadow.choice.shape[-1] == classes:
        return shadow.choice
    place = torch.arange(classes, device=shadow.value.device, dtype=shadow.value.dtype)
    return (1 - (shadow.value[..., None] - place).abs()).clamp_min(0)


def _scatter(base: Tensor, dim: int, shadow: Shadow, source: Any) -> Tensor | None:
    if shadow.mask is not None and shadow.mask.shape == base.shape and not isinstance(source, Tensor):
        return base * (1 - shadow.mask) + source * shadow.mask
    if (
        shadow.choice is not None
        and not isinstance(source, Tensor)
        and shadow.choice.shape[-1] == base.shape[dim]
    ):
        choice = shadow.choice
        if choice.ndim == base.ndim + 1:  # index kept its dimension of size one
            choice = choice.sum(dim if dim >= 0 else dim - 1)
        choice = choice.movedim(-1, dim)
        if choice.shape == base.shape:
            return base * (1 - choice) + source * choice
    return None


_MOVES = frozenset(
    """T mT unsqueeze squeeze view reshape permute transpose expand flatten contiguous clone repeat movedim t detach cpu
    long int expand_as view_as""".split()
)


def through(
    name: str,
    func: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any],
    shadow_of: Callable[[Any], Shadow | None],
) -> Tensor | Shadow | list[Shadow] | None:
    """What an operation on shadowed tensors gives when their shadows stand in for them; None where nobody knows."""
    shadows: list[Shadow | None] = [shadow_of(a) for a in args]
    first = shadows[0] if shadows else None
    if name in ("__getitem__", "embedding", "index_select", "take_along_dim", "gather"):
        return _lookup(name, args, kwargs, shadows)
    if name == "argsort" and first is not None and first.choice is not None and args[0].ndim > 1:
        # The order of an order is its inverse: which place each option has.
        places = first.choice.transpose(-1, -2)
        places = places / places.sum(-1, keepdim=True)
        return Shadow(_place(places), choice=places)
    if name == "unbind" and first is not None:
        dim = _argument(args, kwargs, 1, "dim", 0) % args[0].ndim
        values = first.value.unbind(dim)
        choices = [None] * len(values) if first.choice is None else first.choice.unbind(dim)
        return [Shadow(v, choice=c) for v, c in zip(values, choices, strict=True)]
    if name == "bincount" and first is not None and first.choice is not None:
        counts = first.choice.sum(0)
        wanted = max(_argument(args, kwargs, 2, "minlength", 0), int(args[0].max()) + 1)
        return Shadow(functional.pad(counts, (0, wanted - len(counts)))) if wanted >= len(counts) else None
    if name == "one_hot" and first is not None:
        classes = _argument(args, kwargs, 1, "num_classes", -1)
        return Shadow(_one_hot(first, classes)) if classes > 0 else None
    if name in ("scatter", "scatter_") and len(args) >= 3 and shadows[2] is not None:
        return _scatter(args[0], args[1], shadows[2], _argument(args, kwargs, 3, "value", kwargs.get("src")))
    if name == "__setitem__":
        mask = shadow_of(args[1])
        if mask is None or mask.value.shape != args[0].shape[: mask.value.ndim]:
            return None
        soft = mask.value.reshape(*mask.value.shape, *[1] * (args[0].ndim - mask.value.ndim))
        value = args[2]
        if isinstance(value, Tensor) and value.ndim and value.numel() > 1:
            return None
        return args[0] * (1 - soft) + value * soft
    plain: tuple[Any, ...] = tuple(
        s.value if s is not None else a for s, a in zip(shadows, args, strict=True)
    )
    plain = tuple([_float(i, shadow_of) for i in a] if isinstance(a, (list, tuple)) else a for a in plain)
    named = {k: _float(v, shadow_of) for k, v in kwargs.items()}
    if name == "where" and len(plain) == 3:
        return plain[0] * plain[1] + (1 - plain[0]) * plain[2]
    if name in ("masked_fill", "masked_fill_"):
        return plain[0] * (1 - plain[1]) + plain[1] * plain[2]
    if name in ("__invert__", "logical_not", "bitwise_not"):
        return Shadow(1 - plain[0])
    if name in ("__and__", "logical_and", "bitwise_and", "__rand__", "__iand__"):
        return Shadow(plain[0] * plain[1])
    if name in ("__or__", "logical_or", "bitwise_or", "__ror__", "__ior__"):
        return Shadow(plain[0] + plain[1] - plain[0] * plain[1])
    if name in ("__xor__", "logical_xor", "bitwise_xor"):
        return Shadow(plain[0] + plain[1] - 2 * plain[0] * plain[1])
    if name in ("any", "amax"):
        return (
            Shadow(func(plain[0], *plain[1:], **named))
            if name == "amax"
            else Shadow(plain[0].amax(*plain[1:2]))
        )
    if name in ("float", "double", "half", "to", "type", "type_as", "bfloat16"):
        return plain[0]
    if (
        name in ("eq", "__eq__")
        and first is not None
        and first.choice is not None
        and isinstance(args[1], int)
    ):
        return Shadow(first.choice[..., args[1]])
    if name in SMOOTH and name not in ("round", "floor", "ceil", "trunc", "fix", "clone", "detach", "data"):
        return SMOOTH[name](0.5, plain, named)
    if first is not None and first.choice is not None and name in _MOVES:
        options = first.choice.unbind(-1)
        moved = torch.stack([func(o, *plain[1:], **named) for o in options], -1)
        return Shadow(func(first.value, *plain[1:], **named), choice=moved)
    made = func(*plain, **named)
    return made if isinstance(made, Tensor) else None


def _float(item: Any, shadow_of: Callable[[Any], Shadow | None]) -> Any:
    shadow = shadow_of(item)
    return item if shadow is None else shadow.value


def _lookup(
    name: str, args: Sequence[Any], kwargs: dict[str, Any], shadows: list[Shadow | None]
) -> Tensor | Shadow | None:
    if name == "embedding" and shadows[0] is not None:
        return _take(args[1], shadows[0])
    if name == "__getitem__" and shadows[1] is not None and args[1].dtype != torch.bool:
        return _take(args[0], shadows[1])
    if name == "__getitem__" and shadows[0] is not None:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        index = (*index, slice(None)) if any(i is Ellipsis for i in index) else index
        choice = shadows[0].choice
        return Shadow(shadows[0].value[args[1]], choice=None if choice is None else choice[index])
    if name == "index_select" and len(args) > 2 and shadows[2] is not None:
        taken = _take(args[0].movedim(args[1], 0), shadows[2])
        return taken.movedim(0, args[1]) if isinstance(taken, Tensor) else taken
    return None


# --- saturation ----------------------------------------------------------------------------------------------------

SATURATING: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "expit": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda a: torch.softmax(a, -1),
    "log_softmax": lambda a: torch.log_softmax(a, -1),
    "logsigmoid": functional.logsigmoid,
    "erf": torch.erf,
    "hardsigmoid": lambda a: torch.sigmoid(a * 2 / 3),
    "hardtanh": torch.tanh,
    "softsign": functional.softsign,
    "atan": torch.atan,
    "arctan": torch.atan,
    "clamp": lambda a: a,
    "clip": lambda a: a,
    "clamp_min": lambda a: a,
    "clamp_max": lambda a: a,
    "relu6": functional.softplus,
    "relu": functional.softplus,
    "threshold": functional.softplus,
    "hardshrink": lambda a: a,
    "softshrink": lambda a: a,
}
