"""One operation on shadowed tensors, as the rules see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .shadow import Shadow, ShadowOf, argument


@dataclass(frozen=True)
class Call:
    """An operation on shadowed tensors.

    **Fields**
    - `args`, `kwargs`: as it was called; `plain` and `named`: with shadows' floats in their tensors' places.
    - `shadows`: of each argument.
    """

    name: str
    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shadow_of: ShadowOf

    @property
    def shadows(self) -> list[Shadow | None]:
        """One for each argument by place."""
        return [self.shadow_of(a) for a in self.args]

    @property
    def plain(self) -> tuple[Any, ...]:
        """The arguments, with shadows' floats in their tensors' places."""
        return tuple(
            [self._float(i) for i in a] if isinstance(a, list | tuple) else self._float(a) for a in self.args
        )

    @property
    def named(self) -> dict[str, Any]:
        """The same of the arguments by name."""
        return {k: self._float(v) for k, v in self.kwargs.items()}

    def shadow(self, position: int, name: str) -> Shadow | None:
        """The shadow of one argument."""
        return self.shadow_of(argument(self.args, self.kwargs, position, name, None))

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """One argument."""
        return argument(self.args, self.kwargs, position, name, default)

    def _float(self, item: Any) -> Any:
        shadow = self.shadow_of(item)
        return item if shadow is None else shadow.value
