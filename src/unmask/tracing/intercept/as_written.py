"""Operations run as the user's code has them, with nothing refused that a deployed network would do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .operations import APPLIED, EXITS, GRADIENTS, tensors_in, written
from .sites import is_library, is_user_file


def as_written(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation as the user's code has it.

    What torch refuses only because a gradient is wanted, and would do for a deployed network, is done without one.
    """
    if name in EXITS:
        return func(*(a.detach() if isinstance(a, Tensor) else a for a in args), **kwargs)
    if name == "__deepcopy__" and args[0].grad_fn is not None:
        return args[0].detach().clone()
    if name in APPLIED and args[0].requires_grad:  # number by number, in Python
        with torch.no_grad():
            func(args[0].detach(), *(a.detach() if isinstance(a, Tensor) else a for a in args[1:]), **kwargs)
        return args[0]
    if name in GRADIENTS and kwargs.get("retain_graph") is None:
        kwargs = {**kwargs, "retain_graph": True}  # the trace looks at the graph afterwards
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        # Not differentiable as called (`out=`, a write into a leaf).
        if not written(name, args, kwargs) or not any(t.requires_grad for t in tensors_in((args, kwargs))):
            raise
        with torch.no_grad():
            return func(*args, **kwargs)


def handled_by_the_user(types: tuple[type, ...]) -> bool:
    """Whether a type of the user's says itself, in `__torch_function__`, what an operation does to it.

    Not while it asks torch for what torch would do.
    """
    if not torch._C._is_torch_function_enabled():
        return False
    codes = (getattr(getattr(t, "__torch_function__", None), "__code__", None) for t in types)
    return any(c and is_user_file(c.co_filename) and not is_library(c.co_filename) for c in codes)


def as_handled(
    mode: TorchFunctionMode,
    func: Callable[..., Any],
    types: tuple[type, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """What the types' own `__torch_function__` make of an operation, the first that has an answer, seen by a mode."""
    TorchFunctionMode.__enter__(mode)  # it is switched off while it is asked
    try:
        for t in types:
            made = t.__torch_function__(func, types, args, kwargs)  # type: ignore[attr-defined]
            if made is not NotImplemented:
                return made
    finally:
        TorchFunctionMode.__exit__(mode, None, None, None)
    raise TypeError(f"no implementation of {func} for {', '.join(t.__name__ for t in types)}")
