"""Smooth surrogates for steps: operations on floats whose derivative is zero or does not exist.

Every rule takes a `width` in the units of the operation's input, and the operation's own arguments; over about that
width a step is smeared out. Results are float; where the operation gives integers or booleans, the result is the
shadow that travels beside them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import order
from .layers import dynamic
from .shadow import Made, Shadow, argument, hat, names

Args = tuple[Any, ...]
Named = dict[str, Any]

# Width of a surrogate, as a share of the spread of what it is a step of. Ours.
SHARE = 0.25


def _difference(args: Args) -> Tensor:
    return args[0] - args[1]


def _greater(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(torch.sigmoid(_difference(args) / width))


def _less(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(torch.sigmoid(-_difference(args) / width))


def _near(distance: Tensor) -> Tensor:
    """One at zero, and sloping towards it from however far: what is equal after a rounding is seldom near it."""
    return 1 / (1 + distance.square())


def _equal(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(_near(_difference(args) / width))


def _close(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(_near(_difference(args) / (width + argument(args, kwargs, 3, "atol", 1e-8))))


def _unequal(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(1 - _near(_difference(args) / width))


def _truth(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(1 - hat(args[0] / width))


def _untruth(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(hat(args[0] / width))


def _sign(width: float, args: Args, kwargs: Named) -> Tensor:
    return torch.tanh(args[0] / width)


def _negative(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(torch.sigmoid(-args[0] / width))


def _heaviside(width: float, args: Args, kwargs: Named) -> Tensor:
    return torch.sigmoid(args[0] / width)


def _itself(width: float, args: Args, kwargs: Named) -> Tensor:
    return args[0]


def _level(width: float, args: Args, kwargs: Named) -> Tensor:
    return args[0] * 0  # a sawtooth goes up and down by the same amount


def _quotient(width: float, args: Args, kwargs: Named) -> Tensor:
    return args[0] / args[1]


def _reversed_quotient(width: float, args: Args, kwargs: Named) -> Tensor:
    return args[1] / args[0]


def _cast(width: float, args: Args, kwargs: Named) -> Shadow:
    # Truncation: between two integers the index is half a step behind. Values that are whole already stay.
    a = args[0]
    whole = bool((a == a.round()).all())
    to_float = any(isinstance(d, torch.dtype) and d.is_floating_point for d in (*args[1:], *kwargs.values()))
    return Shadow(a if whole or to_float else a - 0.5)


def _quantised(width: float, args: Args, kwargs: Named) -> Shadow:
    return Shadow(args[0])


def _bucketize(width: float, args: Args, kwargs: Named) -> Shadow:
    x, edges = args[0], args[1]
    return Shadow(torch.sigmoid((x[..., None] - edges) / width).sum(-1))


def _searchsorted(width: float, args: Args, kwargs: Named) -> Shadow:
    edges, x = args[0], torch.as_tensor(args[1])
    if edges.ndim > 1:
        edges = edges.unsqueeze(-2)  # [..., 1, edges], a row of edges for each row of values
    return Shadow(torch.sigmoid((x[..., None] - edges) / width).sum(-1))


def _histogram(width: float, args: Args, kwargs: Named) -> Tensor:
    x = args[0].flatten()
    bins = int(argument(args, kwargs, 1, "bins", 100))
    low, high = (float(argument(args, kwargs, n, name, 0)) for n, name in ((2, "min"), (3, "max")))
    if low == high:
        low, high = float(x.min()), float(x.max())
    size = (high - low) / bins or 1.0
    centres = low + size * (torch.arange(bins, device=x.device, dtype=x.dtype) + 0.5)
    inside = ((x >= low) & (x <= high)).to(x)
    return (hat((x[:, None] - centres) / size) * inside[:, None]).sum(0)


def _resampled(width: float, args: Args, kwargs: Named) -> Tensor:
    """Between its neighbours instead of at the nearest of them."""
    padding, corners = (
        argument(args, kwargs, 3, "padding_mode", "zeros"),
        argument(args, kwargs, 4, "align_corners", None),
    )
    return F.grid_sample(args[0], args[1], "bilinear", padding, corners)


# By `op_name`, without a trailing underscore: in-place forms share their rule.
SMOOTH: dict[str, Callable[[float, Args, Named], Made]] = {
    **names(_greater, "gt ge greater greater_equal __gt__ __ge__"),
    **names(_less, "lt le less less_equal __lt__ __le__"),
    **names(_equal, "eq __eq__"),
    "isclose": _close,
    **names(_unequal, "ne not_equal __ne__"),
    **names(_truth, "bool"),
    **names(_untruth, "logical_not"),
    **names(_sign, "sign sgn"),
    **names(_negative, "signbit"),
    **names(_heaviside, "heaviside"),
    **names(_itself, "round floor ceil trunc fix detach data clone tensor as_tensor"),
    **names(_itself, "fake_quantize_per_tensor_affine fake_quantize_per_channel_affine"),
    **names(_level, "remainder fmod frac __mod__"),
    **names(_quotient, "floor_divide __floordiv__ div divide"),
    **names(_reversed_quotient, "__rfloordiv__"),
    **names(_cast, "to long int byte short char type type_as half bfloat16"),
    **names(_quantised, "quantize_per_tensor quantize_per_channel quantize_per_tensor_dynamic"),
    **names(dynamic, "linear_dynamic linear_dynamic_fp16 conv1d_dynamic conv2d_dynamic conv3d_dynamic"),
    "argmax": order.arg_extreme(1),
    "argmin": order.arg_extreme(-1),
    "max": order.extreme(1),
    "min": order.extreme(-1),
    **names(order.topk, "topk"),
    **names(order.sort, "argsort sort"),
    **names(order.kth_value, "kthvalue"),
    **names(order.median, "median nanmedian"),
    **names(order.mode, "mode"),
    **names(order.running_extreme(1), "cummax"),
    **names(order.running_extreme(-1), "cummin"),
    **names(_bucketize, "bucketize"),
    **names(_searchsorted, "searchsorted"),
    **names(_histogram, "histc"),
    "grid_sample": _resampled,
}
# Which of them are steps of the difference of their first two arguments.
_COMPARED = frozenset("gt ge lt le eq ne greater less greater_equal less_equal not_equal isclose".split())


def typical_width(name: str, values: list[Tensor]) -> float:
    """A width for an operation's surrogate: a quarter of the spread of what it is a step of.

    **Arguments**
    - `values`: its float arguments.
    """
    if len(values) > 1 and name.strip("_") in _COMPARED:
        values = [values[0] - values[1]]
    # A single number has no spread.
    spread = float(values[0].detach().double().std()) if values and values[0].numel() > 1 else 1.0
    width = SHARE * spread
    return width if width > 0 and math.isfinite(width) else 0.1
