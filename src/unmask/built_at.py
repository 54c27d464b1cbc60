"""Which line of the user's source built an object: told where somebody watches, and nowhere else.

The tracer watches. A source only says which kinds are worth it, and what its own modules stand for: `verify` opens
sources, too, and has no part of the tracer.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

Watch = Callable[[Any], AbstractContextManager[None]]

# By identity, because a module may define `__eq__` without `__hash__`; the reference tells a reused id apart.
_sites: dict[int, tuple[weakref.ref[Any], str, int]] = {}
_stand_ins: dict[int, weakref.ref[Any]] = {}
_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching(watch: Watch) -> Iterator[None]:
    """Within the block `watched` asks `watch`."""
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)


def watched(kind: Any) -> AbstractContextManager[None]:
    """A block in which the lines that build objects of that kind are noted, if somebody watches."""
    watch = _watch.get()
    return nullcontext() if watch is None else watch(kind)


def note(built: Any, place: tuple[str, int] | None) -> None:
    """Says which file and line built an object; with None nothing is said."""
    if place is not None:
        key = id(built)
        _sites[key] = (weakref.ref(built, lambda gone: _forget(key, gone)), *place)


def built_as(module: Any, part: Any) -> None:
    """Says that a module of ours stands for something that the user built: their line is its line, too."""
    note(module, site_of(part))
    _stand_ins[id(module)] = weakref.ref(module)


def stands_for_another(module: Any) -> bool:
    """Whether `built_as` was told of it: its own line, where the user built it, says less than what it does."""
    entry = _stand_ins.get(id(module))
    return entry is not None and entry() is module


def site_of(module: Any) -> tuple[str, int] | None:
    """File and line that built the module, or None if nobody watched."""
    entry = _sites.get(id(module))
    return None if entry is None or entry[0]() is not module else entry[1:]


def _forget(key: int, gone: weakref.ref[Any]) -> None:
    if key in _sites and _sites[key][0] is gone:
        del _sites[key]
