"""Operations run as the user's code has them, with nothing refused that a deployed network would do; or uncut."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .operations import APPLIED, CUTS, EXITS, GRADIENTS, REPLACING, tensors_in, written


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


def uncut(name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Runs an operation so that autograd's graph goes on where the user's code would have cut it.

    For a backward pass that is to be followed, not recorded.
    """
    if name in (*REPLACING, "Parameter"):
        return func(*args, **kwargs)
    if name in CUTS and args and isinstance(args[0], Tensor) and args[0].requires_grad:
        if name == "__deepcopy__":
            return args[0].clone()
        return args[0].view_as(args[0]) if name in ("detach", "data") else args[0]
    if name in EXITS:
        return func(*(a.detach() if isinstance(a, Tensor) else a for a in args), **kwargs)
    if name in APPLIED:  # number by number, in Python
        made = func(
            args[0].detach(), *(a.detach() if isinstance(a, Tensor) else a for a in args[1:]), **kwargs
        )
        args[0].detach_()
        return args[0] if made.shape == args[0].shape else made
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        # Not differentiable as called (`out=`, a write into a leaf): then as the user's code would run it.
        with torch.no_grad():
            return func(*args, **kwargs)
