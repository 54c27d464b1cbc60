"""The curve that is differentiated in the place of each saturating function when its gain is reduced."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

CURVES: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "expit": torch.sigmoid,
    "tanh": torch.tanh,
    "softmax": lambda a: torch.softmax(a, -1),
    "log_softmax": lambda a: torch.log_softmax(a, -1),
    "logsigmoid": functional.logsigmoid,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "special_ndtr": torch.special.ndtr,
    "special_expit": torch.sigmoid,
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
