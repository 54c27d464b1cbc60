"""The places in which a state can be: each knows what has changed in it, and how to put that back."""

from __future__ import annotations

import math
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn

from ..types import plain

PLAIN = (int, float, complex, str, bytes, bool, type(None))
# What torch's modules keep for themselves: hooks come and go with whoever watches.
MODULES_OWN = frozenset(vars(nn.Module())) - {"_parameters", "_buffers", "_modules", "training"}
# Of a key that is a word in a name; a longer one is a key that was computed. Ours.
LONGEST = 40


class Part(ABC):
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


class Memory(Part):
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


class Names(Part):
    """Names and what they stand for: attributes, entries of a dictionary, variables of a closure or of a file.

    What came since is removed where `wanted` says so of its whole name; of a file's variables nothing is. Entries of a
    dictionary whose keys are no words, as those of a cache, go by the dictionary's name.
    """

    def __init__(
        self,
        at: str,
        names: MutableMapping[Any, Any],
        kept: dict[Any, Any],
        wanted: Callable[[str], bool] = lambda name: True,
    ):
        self.at, self.names, self.kept, self.wanted = at, names, kept, wanted

    def _called(self, key: Any) -> str:
        word = isinstance(key, str) and "." not in key and len(key) <= LONGEST
        return joined(self.at, key) if word or not self.at else self.at

    def _came(self) -> list[Any]:
        came = (k for k in self.names if k not in self.kept and k not in MODULES_OWN)
        return [k for k in came if self.wanted(self._called(k))]

    def _other(self) -> list[Any]:
        now = entries(self.names)
        return [k for k, v in self.kept.items() if k not in now or not unchanged(now[k], v)]

    def changes(self) -> list[str]:
        return list(dict.fromkeys(self._called(k) for k in (*self._other(), *self._came())))

    def counts(self) -> list[str]:
        there = (k for k in self._other() if k in self.names)
        return [self._called(k) for k in there if type(self.kept[k]) in (int, float)]

    def only(self, names: set[str]) -> Names:
        known = {self._called(k) for k in self.kept}
        # A cache has other entries for other images: where one came, all that come are wanted.
        grows = any(name.rpartition(".")[0] == self.at and name not in known for name in names)
        kept = {k: v for k, v in self.kept.items() if self._called(k) in names}

        def wanted(name: str) -> bool:
            return self.wanted(name) and (name in names or (grows and name not in known))

        return Names(self.at, self.names, kept, wanted)

    def restore(self) -> None:
        for name in self._came():
            del self.names[name]
        for name in self._other():
            self.names[name] = self.kept[name]


def entries(names: Mapping[Any, Any]) -> dict[Any, Any]:
    """What is stored in a mapping, past what a subclass of `dict` makes of it when it is asked."""
    return dict(dict.items(names)) if isinstance(names, dict) else dict(names)


class Row(Part):
    """The elements of a list, a deque or a set."""

    def __init__(self, at: str, row: Any):
        self.at, self.row, self.kept = at, row, list(row)

    def changes(self) -> list[str]:
        now = list(self.row)
        same = len(now) == len(self.kept) and all(map(unchanged, now, self.kept))
        return [] if same else [self.at]

    def restore(self) -> None:
        self.row.clear()
        (self.row.update if isinstance(self.row, set) else self.row.extend)(self.kept)


class Remembered(Part):
    """What `functools.lru_cache` or `functools.cache` has kept of a function, as long as it began with nothing.

    What it held before cannot be read, so that whatever was there stays there.
    """

    def __init__(self, at: str, function: Any):
        self.at, self.function, self.filled = at, function, function.cache_info().currsize > 0

    def changes(self) -> list[str]:
        return [self.at] if not self.filled and self.function.cache_info().currsize else []

    def restore(self) -> None:
        if not self.filled:
            self.function.cache_clear()


class Cells(MutableMapping[str, Any]):
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


class OfClass(MutableMapping[str, Any]):
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


def never(name: str) -> bool:
    """Of no name."""
    return False


def _equal(now: Any, kept: Any) -> bool:
    if now.shape != kept.shape or now.dtype != kept.dtype:
        return False
    if isinstance(now, Tensor):
        now, kept = plain(now), plain(kept)
        return torch.equal(now, kept) or bool(((now == kept) | ((now != now) & (kept != kept))).all())
    return bool(((now == kept) | ((now != now) & (kept != kept))).all())


def unchanged(now: object, kept: object) -> bool:
    """Whether it is the same object, or an equal number or text."""
    return now is kept or (isinstance(kept, PLAIN) and type(now) is type(kept) and now == kept)


def joined(at: str, name: object) -> str:
    """The name of what stands under `name` in the place `at`."""
    return f"{at}.{name}" if at else str(name)


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
