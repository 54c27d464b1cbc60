"""The logs of soft-maxes and exponentials, which travel beside them until somebody takes the log.

A share that underflows, is held above a floor or leaves the range of sixteen bits has no slope any more; its log, made
of the logits themselves, has. So has the log of a sum of exponentials (a kernel density, say), all of which underflow.
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
_OVER = frozenset("div divide true_divide __truediv__".split())
_JOINING = frozenset("stack cat concat concatenate hstack vstack".split())
# Linear in what they are given first or second, with weights that are nowhere negative where they have any.
_SUMMING = frozenset("sum mean nansum matmul __matmul__ mm bmm mv einsum linear tensordot".split())


class Logs:
    """The logs of shares during one pass."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[Tensor, Tensor]] = {}

    def begin(self, made: Tensor, name: str, logits: Tensor, dim: int) -> Tensor:
        """Notes the logs of the shares that a soft-max or a sigmoid made."""
        wide = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits
        base = base_name(name)
        if base in ("exp", "exp2"):
            return self._keep(made, wide * (math.log(2) if base == "exp2" else 1.0))
        return self._keep(
            made, torch.log_softmax(wide, dim) if base == "softmax" else functional.logsigmoid(wide)
        )

    def follow(
        self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], made: Any
    ) -> Any:
        """What an operation made; where it is the log of shares, with the gradient of their own logs."""
        base = base_name(name)
        if base in _JOINING and args and all(id(a) in self._of for a in args[0]):
            return self._keep(made, func([self._of[id(a)][1] for a in args[0]], *args[1:], **kwargs))
        known = next((self._of[id(a)][1] for a in args if id(a) in self._of), None)
        if known is None or not isinstance(made, Tensor) or not made.is_floating_point():
            return made
        if base in _SUMMING:
            summed = self._summed(func, args, kwargs, known)
            return made if summed is None else self._keep(made, summed)
        if base in _SCALES and made.shape == known.shape:
            return SurrogateGradient.apply(made.detach(), known / _SCALES[base])
        if base == "prod":
            return self._keep(made, torch.sum(known, *args[1:], **kwargs))
        both = [self._of[id(a)][1] for a in args if id(a) in self._of]
        if len(both) == len(args) == 2 and base in _TIMES | _OVER:
            return self._keep(made, both[0] + both[1] if base in _TIMES else both[0] - both[1])
        if len(both) == 1 and base in _TIMES and all(isinstance(a, Tensor) for a in args):
            (other,) = (a for a in args if id(a) not in self._of)
            return made if bool((other < 0).any()) else self._keep(made, known + other.log())
        numbers = [a for a in args if isinstance(a, int | float)]
        if base in _MOVING and id(args[0]) in self._of:
            return self._keep(made, func(known, *args[1:], **kwargs))
        if base in _TIMES and numbers and numbers[0] > 0:
            return self._keep(made, known + math.log(numbers[0]))
        added = not base.strip("_").endswith("add") or (bool(numbers) and 0 < numbers[0] < SMALL)
        return self._keep(made, known) if base in _KEEPING and added else made

    def _summed(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], known: Tensor
    ) -> Tensor | None:
        """The log of a sum of what `known` is the log of; None where something else is added or taken away.

        In 64 bits, with the largest of each example taken out: 708 nats below it nothing is left.
        """
        rest = [a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and id(a) not in self._of]
        if sum(id(a) in self._of for a in args) != 1 or any(bool((a < 0).any()) for a in rest):
            return None
        wide = known.double()
        top = wide.detach().flatten(1).amax(1) if wide.ndim > 1 else wide.detach().amax()

        def beside(a: Any) -> Any:
            if isinstance(a, Tensor) and id(a) in self._of:
                return (wide - top.reshape(-1, *[1] * (wide.ndim - 1))).exp()
            return a.double() if isinstance(a, Tensor) and a.is_floating_point() else a

        made = func(*map(beside, args), **{k: beside(v) for k, v in kwargs.items()})
        if made.ndim < 1 or len(made) != len(wide):
            return None
        logs = made.clamp_min(torch.finfo(made.dtype).tiny).log() + top.reshape(-1, *[1] * (made.ndim - 1))
        return logs.to(known.dtype)

    def _keep(self, made: Tensor, logs: Tensor) -> Tensor:
        if made.shape == logs.shape:
            self._of[id(made)] = made, logs
        return made
