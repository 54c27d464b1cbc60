"""Variables that no object of the network's holds: those of modules, and of the context in which it is called."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any

from .parts import Part, unchanged


class Current(Part):
    """The value of a context variable where this was made. One without any could not be made so again."""

    def __init__(self, at: str, variable: ContextVar[Any], kept: Any):
        self.at, self.variable, self.kept = at, variable, kept

    @staticmethod
    def of(at: str, variable: ContextVar[Any]) -> Current | None:
        """None where it has neither value nor default."""
        try:
            return Current(at, variable, variable.get())
        except LookupError:
            return None

    def changes(self) -> list[str]:
        return [] if unchanged(self.variable.get(), self.kept) else [self.at]

    def counts(self) -> list[str]:
        return self.changes() if type(self.kept) in (int, float) else []

    def restore(self) -> None:
        self.variable.set(self.kept)


class OfModule(MutableMapping[str, Any]):
    """Of the variables of a module, those that stand under some names and are `data`.

    Other things come and go in libraries as they are used, such as parts that are imported late.
    """

    def __init__(self, module: types.ModuleType, names: set[str], data: Callable[[object], bool]):
        self.all, self.names, self.data = vars(module), names, data

    def __getitem__(self, name: str) -> Any:
        if name not in self.names or not self.data(self.all[name]):
            raise KeyError(name)
        return self.all[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.all[name] = value

    def __delitem__(self, name: str) -> None:
        del self.all[name]

    def __iter__(self) -> Iterator[str]:
        return iter([name for name in self.names & self.all.keys() if self.data(self.all[name])])

    def __len__(self) -> int:
        return len(list(iter(self)))
