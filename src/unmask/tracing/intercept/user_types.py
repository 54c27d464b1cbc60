"""What types of the user's do: in `__torch_function__`, and below autograd in `__torch_dispatch__`."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .sites import is_library, is_user_file

_PLAIN = (Tensor, nn.Parameter, nn.Buffer)
_KEY = torch._C.DispatchKey
_AUTOGRAD = torch._C.DispatchKeySet(_KEY.AutogradCPU) | torch._C.DispatchKeySet(_KEY.AutogradCUDA)


def handled_by_the_user(types: tuple[type, ...]) -> bool:
    """Whether a type of the user's says itself, in `__torch_function__`, what an operation does to it.

    Not while it asks torch for what torch would do.
    """
    if not torch._C._is_torch_function_enabled():
        return False
    return any(_of_the_user(getattr(t, "__torch_function__", None)) for t in types)


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


def _of_the_user(method: Any) -> bool:
    """Whether a function or method was written by the user."""
    code = getattr(getattr(method, "__func__", method), "__code__", None)
    return code is not None and is_user_file(code.co_filename) and not is_library(code.co_filename)


def _below_autograd() -> bool:
    return torch._C._dispatch_tls_is_dispatch_key_excluded(_KEY.AutogradOther)


def makes_graph() -> bool:
    """Whether an operation on what wants a gradient makes a graph now."""
    return torch.is_grad_enabled() and not _below_autograd()


@contextmanager
def above_autograd() -> Iterator[None]:
    """A graph is made, also inside of what autograd has handed on."""
    with torch.enable_grad():
        if not _below_autograd():
            yield
            return
        kept, left = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
        with torch._C._ForceDispatchKeyGuard(kept, left - _AUTOGRAD):
            yield


class Dispatches:
    """Has a mode see what types of the user's do below autograd, in the operations that are run by `seeing`."""

    def __init__(self, mode: TorchFunctionMode):
        self._mode = weakref.ref(mode)  # a circle would hold the pass's graph until garbage is collected
        self._before: dict[type, Any] = {}
        self._running = 0

    def seeing(self, func: Callable[..., Any], args: tuple[Any, ...]) -> Callable[..., Any]:
        """The function itself, or one that shows what is done to an argument of such a type in it."""
        new = [t for t in {type(a) for a in args} if t not in _PLAIN and t not in self._before]
        for t in new:
            if "__torch_dispatch__" in vars(t) and _of_the_user(vars(t)["__torch_dispatch__"]):
                self._before[t] = vars(t)["__torch_dispatch__"]
                t.__torch_dispatch__ = classmethod(self._watched(t.__torch_dispatch__))  # type: ignore[attr-defined]
        if not self._before or not any(type(a) in self._before for a in args):
            return func

        @functools.wraps(func)
        def run(*args: Any, **kwargs: Any) -> Any:
            self._running += 1
            try:
                return func(*args, **kwargs)
            finally:
                self._running -= 1

        return run

    def _watched(self, dispatch: Callable[..., Any]) -> Callable[..., Any]:
        def watched(_: type, *given: Any, **kwargs: Any) -> Any:
            mode = self._mode()
            if mode is None or not self._running:
                return dispatch(*given, **kwargs)
            TorchFunctionMode.__enter__(mode)
            try:
                return dispatch(*given, **kwargs)
            finally:
                TorchFunctionMode.__exit__(mode, None, None, None)

        return watched

    def end(self) -> None:
        """Leaves the types as they were."""
        for t, before in self._before.items():
            t.__torch_dispatch__ = before  # type: ignore[attr-defined]
        self._before.clear()
