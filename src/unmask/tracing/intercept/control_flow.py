"""`torch.cond` and its like as the Python that they stand for, so that what lies in their branches is seen.

Under somebody's mode torch compiles such a call each time it is made, and what comes out is one operation, without a
slope where a branch steps. In Python the same operations run one by one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any

import torch
from torch.utils import _pytree as pytree


def _cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], operands: Any = ()) -> Any:
    return true_fn(*operands) if pred else false_fn(*operands)


def _while_loop(cond_fn: Callable[..., Any], body_fn: Callable[..., Any], carried_inputs: Any) -> Any:
    carried = carried_inputs
    while cond_fn(*carried):
        carried = body_fn(*carried)
    return carried


def _map(f: Callable[..., Any], xs: Any, *args: Any) -> Any:
    return _stacked([f(x, *args) for x in _slices(xs)])


def _scan(
    combine_fn: Callable[..., Any], init: Any, xs: Any, *, dim: int = 0, reverse: bool = False
) -> tuple[Any, Any]:
    slices = _slices(pytree.tree_map(lambda t: t.movedim(dim, 0), xs))
    if not slices:
        return init, []
    carry, made = init, []
    for x in reversed(slices) if reverse else slices:
        carry, y = combine_fn(carry, x)
        made.append(y)
    stacked = _stacked(made[::-1] if reverse else made)
    return carry, pytree.tree_map(lambda t: t.movedim(0, dim) if dim < t.ndim else t, stacked)


def _slices(xs: Any) -> list[Any]:
    leaves, spec = pytree.tree_flatten(xs)
    return [pytree.tree_unflatten(list(one), spec) for one in zip(*leaves, strict=True)]


def _stacked(made: list[Any]) -> Any:
    return pytree.tree_map(lambda *leaves: torch.stack(leaves), *made)


IN_PYTHON = {"cond": _cond, "while_loop": _while_loop, "map": _map, "scan": _scan}


@contextmanager
def as_python() -> Iterator[None]:
    """Has these functions run as Python, under whatever name they were imported. Nests.

    The function objects stay, as `torch.compile` knows them by; their code is another for the time.
    """
    with ExitStack() as ends:
        for name, plain in IN_PYTHON.items():
            function = getattr(importlib.import_module(f"torch._higher_order_ops.{name}"), name, None)
            if isinstance(function, FunctionType) and not function.__code__.co_freevars:
                ends.enter_context(_running(function, plain))
        yield


@contextmanager
def _running(function: FunctionType, plain: Callable[..., Any]) -> Iterator[None]:
    names, code, key = function.__globals__, function.__code__, f"_unmask_{function.__name__}"
    outer = names.get(key)
    names[key] = plain
    function.__code__ = _calling(key)
    try:
        yield
    finally:
        function.__code__ = code
        if outer is None:
            del names[key]
        else:
            names[key] = outer


def _calling(key: str) -> Any:
    made: dict[str, Any] = {}
    exec(f"def calling(*args, **kwargs): return {key}(*args, **kwargs)", made)
    return made["calling"].__code__
