"""`autograd.Function.apply` by its code object, so that `quantize = Q.apply` made at import is seen, too."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from torch.autograd import function as autograd_function

_APPLY = autograd_function.Function.__dict__["apply"].__func__
ORIGINAL_APPLY = types.FunctionType(
    _APPLY.__code__, _APPLY.__globals__, _APPLY.__name__, _APPLY.__defaults__, _APPLY.__closure__
)


def _forwarding_code() -> types.CodeType:
    __class__ = None  # the original closes over its class, and a code object can only replace its like

    def apply(cls, *args, **kwargs):
        __class__  # noqa: B018
        return _unmask_apply(cls, args, kwargs)  # type: ignore[name-defined]

    return apply.__code__


_FORWARDING = _forwarding_code()


def diverted(to: Callable[[type, tuple[Any, ...], dict[str, Any]], Any]) -> Callable[[], None]:
    """Sends every call of `apply` to `to(function, args, kwargs)`; what it returns ends that. Nests."""
    names, code, outer = _APPLY.__globals__, _APPLY.__code__, _APPLY.__globals__.get("_unmask_apply")
    names["_unmask_apply"] = to
    _APPLY.__code__ = _FORWARDING

    def end() -> None:
        _APPLY.__code__ = code
        if outer is None:
            del names["_unmask_apply"]
        else:
            names["_unmask_apply"] = outer

    return end
