"""The curve that is differentiated in the place of each saturating function when its gain is reduced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

# Along a dimension.
SHARES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "softmax": torch.softmax,
    "softmin": lambda a, dim: torch.softmax(-a, dim),
    "log_softmax": torch.log_softmax,
}
CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "expit": torch.sigmoid,
    "tanh": torch.tanh,
    "logsigmoid": functional.logsigmoid,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "ndtr": torch.special.ndtr,
    "log_ndtr": torch.special.log_ndtr,
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    **dict.fromkeys(("igamma", "gammainc"), functional.softsign),
    **dict.fromkeys(("igammac", "gammaincc"), lambda a: -functional.softsign(a)),
    "hardsigmoid": lambda a: torch.sigmoid(a * 2 / 3),
    "hardtanh": torch.tanh,
    "softsign": functional.softsign,
    "atan": torch.atan,
    "arctan": torch.atan,
    "clamp": lambda a: a,
    "clip": lambda a: a,
    "clamp_min": lambda a: a,
    "clamp_max": lambda a: a,
    **dict.fromkeys(("minimum", "maximum", "fmin", "fmax"), lambda a: a),
    "relu6": functional.softplus,
    "relu": functional.softplus,
    "threshold": functional.softplus,
    "hardshrink": lambda a: a,
    "softshrink": lambda a: a,
}
