"""A custom function's own forward, differentiated in the place of the backward that it declares."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import _pop_mode_temporarily

from .arrays import following


class _Context:
    """Stands in for autograd's context while a forward is differentiated for what it is."""

    def __init__(self, arguments: int):
        self.needs_input_grad = (True,) * arguments

    def save_for_backward(self, *tensors: Tensor) -> None:
        self.saved_tensors = tensors

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("mark_", "set_", "save_")):
            return lambda *_: None
        raise AttributeError(name)


def own_forward(
    function: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    rewriter: AbstractContextManager[Any],
) -> Any:
    """What `function.forward` makes of the arguments, recorded by autograd under a rewriter of its own.

    **Arguments**
    - `rewriter`: softens the steps inside; the one that is at work outside waits meanwhile.
    """
    new_style = function.setup_context is not _SingleLevelFunction.setup_context
    context = () if new_style else (_Context(len(args)),)
    # Whoever calls a function sees it with torch's own interception switched off. Autograd runs a forward without
    # gradient, so that it may write into anything; the graph is the rewriter's.
    with torch._C._EnableTorchFunction(), _pop_mode_temporarily(), rewriter, following(), torch.no_grad():
        return function.forward(*context, *args, **kwargs)
