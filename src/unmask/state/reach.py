"""All places that a state can be in and that are reached from a network."""

from __future__ import annotations

import contextvars
import functools
import os
import random
import sys
import types
from collections import deque
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from .parts import (
    MODULES_OWN,
    PLAIN,
    Cells,
    Memory,
    Names,
    OfClass,
    Part,
    Remembered,
    Row,
    entries,
    joined,
    never,
)
from .variables import Current, OfModule

# Where random numbers come from is randomness, which is averaged over, and no state, which is put back.
_RANDOM = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
# Things without a state of their own, or whose state is the process's.
_CACHED = type(functools.lru_cache(int))
_OPAQUE = (type, types.ModuleType, types.BuiltinFunctionType, torch.dtype, torch.device, torch.Size, *_RANDOM)
# Most things that are looked at; a network that holds more keeps its state to itself. Ours.
_MOST = 50_000


def parts_of(network: object) -> list[Part]:
    """The places, nearest first; a thing that is reached twice has the shorter name."""
    found: list[Part] = []
    seen: dict[int, object] = {}  # the objects, so that no id is used twice
    left: deque[tuple[str, object]] = deque([("", network)])
    while left and len(seen) < _MOST:
        at, thing = left.popleft()
        if id(thing) in seen or isinstance(thing, PLAIN):
            continue
        seen[id(thing)] = thing
        part, inside = _look(at, thing)
        found += part
        left.extend(inside)
    return found


def _look(at: str, thing: Any) -> tuple[list[Part], list[tuple[str, object]]]:
    """The places of a thing that can hold a state, and what else can be reached from it."""
    if is_traceable_wrapper_subclass(thing):  # need not know how to be copied; what it wraps does
        return [], [(joined(at, name), getattr(thing, name)) for name in thing.__tensor_flatten__()[0]]
    if isinstance(thing, Tensor):
        # What somebody has hung on a tensor is no number of it.
        named: list[Part] = [Names(at, vars(thing), dict(vars(thing)))]
        numbers: list[Part] = [Memory(at, thing)] if _copies(thing) else []
        return named + numbers, [(joined(at, k), v) for k, v in vars(thing).items()]
    if isinstance(thing, np.ndarray):
        return ([Memory(at, thing)] if thing.dtype != object else []), []
    if isinstance(thing, dict):
        held = entries(thing)
        return [Names(at, thing, held)], [(joined(at, k), v) for k, v in held.items()]
    if isinstance(thing, list | deque | set):
        return [Row(at, thing)], [(at, v) for v in thing]
    if isinstance(thing, tuple | frozenset):
        return [], [(at, v) for v in thing]
    if isinstance(thing, torch.jit.ScriptModule):
        return [], [*thing.named_parameters(at), *thing.named_buffers(at)]
    if isinstance(thing, types.MethodType):
        return [], [(at, thing.__self__), (at, thing.__func__)]
    if isinstance(thing, _CACHED):
        return ([Remembered(at, thing)] if _users(thing) else []), [(at, thing.__wrapped__)]
    if isinstance(thing, contextvars.ContextVar | types.GeneratorType) or thing is os.environ:
        return _around(at, thing)
    if isinstance(thing, functools.partial):
        return [], [(at, thing.func), (at, thing.args), (at, thing.keywords)]
    if isinstance(thing, types.FunctionType):
        return _function(at, thing)
    if isinstance(thing, _OPAQUE) or not isinstance(getattr(thing, "__dict__", None), dict):
        return [], []
    return _instance(at, thing)


def _around(at: str, thing: Any) -> tuple[list[Part], list[tuple[str, object]]]:
    """Of what a call finds around it: the process's environment, a context variable, a generator that is running."""
    if isinstance(thing, contextvars.ContextVar):
        there = Current.of(at, thing)
        return ([], []) if there is None else ([there], [(at, there.kept)])
    if isinstance(thing, types.GeneratorType):  # its variables cannot be set, and what they hold can
        return [], [
            (joined(at, k), v) for k, v in (thing.gi_frame.f_locals if thing.gi_frame else {}).items()
        ]
    return [Names(at, thing, dict(thing))], []


def _instance(at: str, thing: Any) -> tuple[list[Part], list[tuple[str, object]]]:
    own = vars(thing)
    kept = {k: v for k, v in own.items() if k not in MODULES_OWN}
    parts: list[Part] = [Names(at, own, kept)]
    # The dictionaries of a module are no level of their own to whoever reads `net.mem`.
    inside = [
        (at if k in ("_buffers", "_parameters", "_modules") else joined(at, k), v) for k, v in kept.items()
    ]
    for owner in type(thing).__mro__:
        if not _users(owner):
            continue
        held = {k: v for k, v in vars(owner).items() if not k.startswith("__") and _is_data(v)}
        if held:
            parts.append(Names(at, OfClass(owner), held, never))
            inside += [(joined(at, k), v) for k, v in held.items()]
        inside += [(at, f) for f in vars(owner).values() if isinstance(f, types.FunctionType)]
        inside += [(joined(at, k), f) for k, f in vars(owner).items() if isinstance(f, _CACHED)]
    return parts, inside


def _function(at: str, function: types.FunctionType) -> tuple[list[Part], list[tuple[str, object]]]:
    cells = Cells(function)
    if not _users(function):
        return [], list(cells.items())
    parts: list[Part] = [Names(at, cells, {k: v for k, v in cells.items() if _is_data(v)}, never)]
    inside = [(joined(at, k), v) for k, v in cells.items()]
    inside += [(at, v) for v in (*(function.__defaults__ or ()), *vars(function).values())]
    named = _named(function.__code__)
    used = {k: function.__globals__[k] for k in named if k in function.__globals__}
    for at_module, module in used.items():
        if isinstance(module, types.ModuleType):
            found, more = _module(at_module, module, named | _worded(function.__code__))
            parts += found
            inside += more
    held = {k: v for k, v in used.items() if _is_data(v)}
    if vars(function):
        parts.append(Names(at, vars(function), dict(vars(function))))
    if held:
        parts.append(Names("", function.__globals__, held, never))
    return parts, [*inside, *used.items()]


def _module(
    at: str, module: types.ModuleType, named: set[str]
) -> tuple[list[Part], list[tuple[str, object]]]:
    """Of a module that a function uses, whoever's it is, the variables by names that the function knows."""
    there = OfModule(module, named, lambda value: _is_data(value) and value is not sys.modules)
    held = dict(there)
    return [Names(at, there, held)], [(joined(at, k), v) for k, v in sorted(held.items())]


def _worded(code: types.CodeType) -> set[str]:
    """Words in a function's code that could be names, as `getattr` takes them."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    words = (c for c in code.co_consts if isinstance(c, str) and c.isidentifier() and not c.startswith("__"))
    return set(words).union(*map(_worded, inner))


def _named(code: types.CodeType) -> set[str]:
    """Names that a function's code may look up globally, those of the functions inside it as well."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*map(_named, inner))


def _users(thing: Any) -> bool:
    root = (getattr(thing, "__module__", None) or "").partition(".")[0]
    return root not in (
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "builtins",
        "unmask",
        "functools",
        "abc",
        "",
    )


def _is_data(value: object) -> bool:
    """Not code: what may be counted up, filled or exchanged."""
    if isinstance(value, nn.Module | Tensor):
        return True
    return not callable(value) and not isinstance(value, (property, staticmethod, classmethod, *_OPAQUE))


def _copies(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type != "meta"
