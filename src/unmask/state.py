"""What a network holds between two calls, and how it is put back: a function has no memory."""

from __future__ import annotations

import functools
import math
import random
import types
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Where random numbers come from is randomness, which is averaged over, and no state, which is put back.
_RANDOM = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
# Things without a state of their own, or whose state is the process's.
_OPAQUE = (type, types.ModuleType, types.BuiltinFunctionType, torch.dtype, torch.device, torch.Size, *_RANDOM)
_PLAIN = (int, float, complex, str, bytes, bool, type(None))
# What torch's modules keep for themselves: hooks come and go with whoever watches.
_MODULES_OWN = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules", "training"}
# Most things that are looked at; a network that holds more keeps its state to itself. Ours.
_MOST = 50_000


class _Part(ABC):
    """One place in which a state can be, as it was when this was made. `at` is the way there in the user's words."""

    at: str

    @abstractmethod
    def changes(self) -> list[str]:
        """Names of what is not as it was."""

    def counts(self) -> list[str]:
        """Those of the changes that are single numbers."""
        return []

    @abstractmethod
    def restore(self) -> None:
        """Puts it back, in place."""


class _Memory(_Part):
    """The numbers of a tensor or an array."""

    def __init__(self, at: str, numbers: Any):
        self.at, self.numbers = at, numbers
        self.kept = numbers.detach().clone() if isinstance(numbers, Tensor) else numbers.copy()

    def changes(self) -> list[str]:
        return [] if _equal(self.numbers, self.kept) else [self.at]

    def counts(self) -> list[str]:
        return self.changes() if math.prod(self.kept.shape) == 1 else []

    def restore(self) -> None:
        if not isinstance(self.numbers, Tensor):
            if self.numbers.shape == self.kept.shape:
                self.numbers[...] = self.kept
        elif self.numbers.shape == self.kept.shape and self.numbers.dtype == self.kept.dtype:
            self.numbers.data.copy_(self.kept)
        else:
            self.numbers.data = self.kept.clone()


class _Names(_Part):
    """Names and what they stand for: attributes, entries of a dictionary, variables of a closure or of a file.

    What came since is removed where `wanted` says so of its whole name; of a file's variables nothing is.
    """

    def __init__(
        self,
        at: str,
        names: MutableMapping[Any, Any],
        kept: dict[Any, Any],
        wanted: Callable[[str], bool] = lambda name: True,
    ):
        self.at, self.names, self.kept, self.wanted = at, names, kept, wanted

    def _came(self) -> list[Any]:
        came = (k for k in self.names if k not in self.kept and k not in _MODULES_OWN)
        return [k for k in came if self.wanted(_joined(self.at, k))]

    def changes(self) -> list[str]:
        gone = [k for k, v in self.kept.items() if k not in self.names or not _unchanged(self.names[k], v)]
        return [_joined(self.at, k) for k in (*gone, *self._came())]

    def counts(self) -> list[str]:
        return [
            _joined(self.at, k)
            for k, v in self.kept.items()
            if type(v) in (int, float) and k in self.names and not _unchanged(self.names[k], v)
        ]

    def only(self, names: set[str]) -> _Names:
        kept = {k: v for k, v in self.kept.items() if _joined(self.at, k) in names}
        return _Names(self.at, self.names, kept, lambda name: self.wanted(name) and name in names)

    def restore(self) -> None:
        for name in self._came():
            del self.names[name]
        self.names.update(self.kept)


class _Row(_Part):
    """The elements of a list, a deque or a set."""

    def __init__(self, at: str, row: Any):
        self.at, self.row, self.kept = at, row, list(row)

    def changes(self) -> list[str]:
        now = list(self.row)
        same = len(now) == len(self.kept) and all(map(_unchanged, now, self.kept))
        return [] if same else [self.at]

    def restore(self) -> None:
        self.row.clear()
        (self.row.update if isinstance(self.row, set) else self.row.extend)(self.kept)


class _Cells(MutableMapping[str, Any]):
    """The variables that a function has from around it."""

    def __init__(self, function: types.FunctionType):
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self.cells = {name: cell for name, cell in cells if _filled(cell)}

    def __getitem__(self, name: str) -> Any:
        return self.cells[name].cell_contents

    def __setitem__(self, name: str, value: Any) -> None:
        self.cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


class _OfClass(MutableMapping[str, Any]):
    """The attributes of a class, which can only be set by `setattr`."""

    def __init__(self, owner: type):
        self.owner = owner

    def __getitem__(self, name: str) -> Any:
        return vars(self.owner)[name]

    def __setitem__(self, name: str, value: Any) -> None:
        if vars(self.owner).get(name) is not value:
            setattr(self.owner, name, value)

    def __delitem__(self, name: str) -> None:
        delattr(self.owner, name)

    def __iter__(self) -> Iterator[str]:
        return iter(vars(self.owner))

    def __len__(self) -> int:
        return len(vars(self.owner))


class State:
    """What `network` holds now: its attributes, buffers and parameters, and all that can be reached from these.

    Seen are modules and other objects, containers, closures, attributes of the user's classes and the global variables
    that their code names; not files, other processes, or what compiled code keeps. Generators of random numbers are
    left alone.

    **Cost**: a copy of every tensor, until `only` drops those that no call changes.

    >>> class Counts:
    ...     calls = 0
    ...     def __call__(self, x):
    ...         self.calls += 1
    ...         return x * self.calls
    >>> network = Counts()
    >>> state = State(network)
    >>> network(2), network(2), state.changes()
    (2, 4, ('calls',))
    >>> state.restore()
    >>> network(2)
    2
    """

    def __init__(self, network: object):
        self._parts = _parts(network)

    def changes(self) -> tuple[str, ...]:
        """Names of what is no longer as it was when this was made, such as `net.mem`."""
        return tuple(name for part in self._parts for name in part.changes())

    def only(self, names: Iterable[str]) -> State:
        """The same, of these alone: those that some calls were seen to change."""
        wanted, chosen = set(names), State(None)
        places = {name.rpartition(".")[0] for name in wanted}
        for part in self._parts:
            if isinstance(part, _Names):
                if part.at in places:
                    chosen._parts.append(part.only(wanted))
            elif part.at in wanted:
                chosen._parts.append(part)
        return chosen

    def counts(self) -> tuple[str, ...]:
        """Names of the changes that are single numbers, such as a count of the calls."""
        return tuple(name for part in self._parts for name in part.counts())

    def restore(self) -> None:
        """Puts everything back as it was, in place: whoever holds a module or a tensor still holds it."""
        for part in self._parts:
            part.restore()


def _parts(network: object) -> list[_Part]:
    found: list[_Part] = []
    seen: dict[int, object] = {}  # the objects, so that no id is used twice
    left: deque[tuple[str, object]] = deque([("", network)])
    while left and len(seen) < _MOST:
        at, thing = left.popleft()
        if id(thing) in seen or isinstance(thing, _PLAIN):
            continue
        seen[id(thing)] = thing
        part, inside = _look(at, thing)
        found += part
        left.extend(inside)
    return found


def _look(at: str, thing: Any) -> tuple[list[_Part], list[tuple[str, object]]]:
    """The places of a thing that can hold a state, and what else can be reached from it."""
    if isinstance(thing, Tensor):
        return ([_Memory(at, thing)] if _copies(thing) else []), []
    if isinstance(thing, np.ndarray):
        return ([_Memory(at, thing)] if thing.dtype != object else []), []
    if isinstance(thing, dict):
        return [_Names(at, thing, dict(thing))], [(_joined(at, k), v) for k, v in thing.items()]
    if isinstance(thing, list | deque | set):
        return [_Row(at, thing)], [(at, v) for v in thing]
    if isinstance(thing, tuple | frozenset):
        return [], [(at, v) for v in thing]
    if isinstance(thing, torch.jit.ScriptModule):
        return [], [*thing.named_parameters(at), *thing.named_buffers(at)]
    if isinstance(thing, types.MethodType):
        return [], [(at, thing.__self__), (at, thing.__func__)]
    if isinstance(thing, functools.partial):
        return [], [(at, thing.func), (at, thing.args), (at, thing.keywords)]
    if isinstance(thing, types.FunctionType):
        return _function(at, thing)
    if isinstance(thing, _OPAQUE) or not isinstance(getattr(thing, "__dict__", None), dict):
        return [], []
    return _instance(at, thing)


def _instance(at: str, thing: Any) -> tuple[list[_Part], list[tuple[str, object]]]:
    own = vars(thing)
    kept = {k: v for k, v in own.items() if k not in _MODULES_OWN}
    parts: list[_Part] = [_Names(at, own, kept)]
    # The dictionaries of a module are no level of their own to whoever reads `net.mem`.
    inside = [
        (at if k in ("_buffers", "_parameters", "_modules") else _joined(at, k), v) for k, v in kept.items()
    ]
    for owner in type(thing).__mro__:
        if not _users(owner):
            continue
        held = {k: v for k, v in vars(owner).items() if not k.startswith("__") and _is_data(v)}
        if held:
            parts.append(_Names(at, _OfClass(owner), held, _never))
            inside += [(_joined(at, k), v) for k, v in held.items()]
        inside += [(at, f) for f in vars(owner).values() if isinstance(f, types.FunctionType)]
    return parts, inside


def _function(at: str, function: types.FunctionType) -> tuple[list[_Part], list[tuple[str, object]]]:
    cells = _Cells(function)
    if not _users(function):
        return [], list(cells.items())
    parts: list[_Part] = [_Names(at, cells, {k: v for k, v in cells.items() if _is_data(v)}, _never)]
    inside = [(_joined(at, k), v) for k, v in cells.items()]
    inside += [(at, v) for v in (*(function.__defaults__ or ()), *vars(function).values())]
    used = {k: function.__globals__[k] for k in _named(function.__code__) if k in function.__globals__}
    held = {k: v for k, v in used.items() if _is_data(v)}
    if vars(function):
        parts.append(_Names(at, vars(function), dict(vars(function))))
    if held:
        parts.append(_Names("", function.__globals__, held, _never))
    return parts, [*inside, *used.items()]


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


def _never(name: str) -> bool:
    return False


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _equal(now: Any, kept: Any) -> bool:
    if now.shape != kept.shape or now.dtype != kept.dtype:
        return False
    if isinstance(now, Tensor):
        now = now.detach()
        return torch.equal(now, kept) or bool(((now == kept) | ((now != now) & (kept != kept))).all())
    return bool(((now == kept) | ((now != now) & (kept != kept))).all())


def _unchanged(now: object, kept: object) -> bool:
    return now is kept or (isinstance(kept, _PLAIN) and type(now) is type(kept) and now == kept)


def _joined(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)
