"""Functions of torch, of this package and of a network's classes as they were before somebody's code replaced some."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from torch import Tensor, nn

# Where attacks find what they compute with. All of torch would be a hundred thousand names.
_MODULES = (
    "torch",
    "torch.autograd",
    "torch.fft",
    "torch.linalg",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.special",
)
_PACKAGES = ("torch.nn.modules", "torch.optim", __name__.partition(".")[0])
_WRAPPED = (property, classmethod, staticmethod)


class Functions:
    """What is called by these names now: in torch's modules, in this package, and in the classes of `modules`.

    Seen are functions, methods, properties and classes that are replaced or removed, and methods that are put before
    inherited ones. What is added under a new name decides nothing.

    >>> import torch
    >>> functions, true = Functions(()), torch.nn.functional.cross_entropy
    >>> torch.nn.functional.cross_entropy = lambda *_: 0
    >>> functions.put_back(), torch.nn.functional.cross_entropy is true
    (['`torch.nn.functional.cross_entropy`'], True)
    """

    def __init__(self, modules: Iterable[nn.Module]):
        kinds = {kind: None for module in modules for kind in type(module).__mro__}
        owners = [*_modules(), Tensor, *_classes(_modules()), *kinds]
        self._held = [(owner, dict(vars(owner))) for owner in dict.fromkeys(owners)]

    def put_back(self) -> list[str]:
        """Writes what is no longer as it was; returns the names of it."""
        changed = []
        for owner, before in self._held:
            now = vars(owner)
            for name in [n for n, v in before.items() if _decides(v) and now.get(n) is not v]:
                setattr(owner, name, before[name])
                changed.append(_called(owner, name))
            if isinstance(owner, ModuleType):
                continue
            for name in [n for n, v in now.items() if n not in before and _decides(v)]:
                if any(name in vars(kind) for kind in owner.__mro__[1:]):
                    delattr(owner, name)
                    changed.append(_called(owner, name))
        return sorted(changed)


def _decides(value: Any) -> bool:
    return callable(value) or isinstance(value, _WRAPPED)


def _modules() -> list[ModuleType]:
    return [m for name, m in list(sys.modules.items()) if type(m) is ModuleType and _looked_at(name)]


def _looked_at(name: str) -> bool:
    return name in _MODULES or any(name == p or name.startswith(p + ".") for p in _PACKAGES)


def _classes(modules: Iterable[ModuleType]) -> Iterator[type]:
    """Classes that these modules define and that Python can write to."""
    for module in modules:
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__module__ == module.__name__:
                yield value


def _called(owner: ModuleType | type, name: str) -> str:
    place = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
    return f"`{place}.{name}`"
