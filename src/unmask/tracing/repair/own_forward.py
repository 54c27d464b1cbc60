"""A custom function's own forward, differentiated in the place of the backward that it declares."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import _SingleLevelFunction
from torch.overrides import TorchFunctionMode, _get_current_function_mode, _pop_mode_temporarily

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


class _AboveAutograd(TorchFunctionMode):
    """Operations inside an operator of `torch.library`, which runs where autograd records nothing any more."""

    def __init__(self):
        super().__init__()
        self._outside = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        with torch._C._ForceDispatchKeyGuard(*self._outside):
            return func(*args, **(kwargs or {}))


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
    # Inside an operator of `torch.library`, whose call it is handling, the one outside waits already.
    waiting = nullcontext() if _get_current_function_mode() is None else _pop_mode_temporarily()
    with torch._C._EnableTorchFunction(), waiting, _AboveAutograd(), rewriter, following(), torch.no_grad():
        return function.forward(*context, *args, **kwargs)
