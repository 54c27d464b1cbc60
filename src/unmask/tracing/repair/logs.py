"""The logs of soft-maxes, which travel beside them until somebody takes the log.

A share that underflows, is held above a floor or leaves the range of sixteen bits has no slope any more; its log, made
of the logits themselves, has.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .surrogate_gradient import SurrogateGradient
from .surrogates import base_name

# What may be added to shares to keep them from zero. Ours.
SMALL = 1e-2
_SCALES = {"log": 1.0, "log2": math.log(2), "log10": math.log(10)}
_KEEPING = frozenset(
    "float half double to type bfloat16 clamp clamp_min clamp_max clip maximum add __add__ __radd__".split()
)
_MOVING = frozenset(
    "view reshape flatten transpose permute unsqueeze squeeze T mT __getitem__ gather contiguous clone movedim "
    "detach".split()
)
_TIMES = frozenset("mul multiply __mul__ __rmul__".split())


class Logs:
    """The logs of shares during one pass."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self, made: Tensor, name: str, logits: Tensor, dim: int) -> Tensor:
        """Notes the logs of the shares that a soft-max or a sigmoid made."""
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        soft = base_name(name) == "softmax"
        return self._keep(made, torch.log_softmax(wide, dim) if soft else functional.logsigmoid(wide))

    def follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], made: Any
    ) -> Any:
        """What an operation made; where it is the log of shares, with the gradient of their own logs."""
        known = next((self._of[id(a)][1] for a in args if id(a) in self._of), None)
        if known is None or not isinstance(made, Tensor) or not made.is_floating_point():
            return made
        base = base_name(name)
        if base in _SCALES and made.shape == known.shape:
            return SurrogateGradient.apply(made.detach(), known / _SCALES[base])
        numbers = [a for a in args if isinstance(a, int | float)]
        if base in _MOVING and id(args[0]) in self._of:
            return self._keep(made, func(known, *args[1:], **kwargs))
        if base in _TIMES and numbers and numbers[0] > 0:
            return self._keep(made, known + math.log(numbers[0]))
        added = not base.strip("_").endswith("add") or (bool(numbers) and 0 < numbers[0] < SMALL)
        return self._keep(made, known) if base in _KEEPING and added else made

    def _keep(self, made: Tensor, logs: Tensor) -> Tensor:
        if made.shape == logs.shape:
            self._of[id(made)] = made, logs
        return made
