"""The user's own numbers, joined to what autograd is to see behind them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from .surrogate_gradient import SurrogateGradient
from .surrogates import Made, Shadow


class Joints:
    """Joins values to their surrogates; those of integers and booleans travel beside them, as a `Shadow`.

    `relaxed`: the surrogate goes on with its own value, as of `Rewrite`.
    """

    def __init__(self, relaxed: bool = False) -> None:
        self._relaxed = relaxed
        self._shadows: dict[int, tuple[Tensor, Shadow]] = {}

    def shadow_of(self, item: Any) -> Shadow | None:
        """What travels beside an integer or boolean tensor."""
        found = self._shadows.get(id(item)) if isinstance(item, Tensor) else None
        return None if found is None else found[1]

    def shadowed(self, tensors: Iterable[Tensor]) -> bool:
        """Whether anything travels beside one of the tensors."""
        return bool(self._shadows) and any(id(t) in self._shadows for t in tensors)

    def lay(self, tensor: Tensor, surrogate: Tensor | Shadow) -> None:
        """Lets a surrogate travel beside a tensor from now on."""
        self._shadows[id(tensor)] = tensor, surrogate if isinstance(surrogate, Shadow) else Shadow(surrogate)

    def joined(self, made: Any, surrogate: Made) -> Any:
        """What an operation returned, each tensor of it joined to its surrogate."""
        if surrogate is None:
            return made
        if not isinstance(made, tuple | list):
            return made if isinstance(surrogate, list) else self._joined_one(made, surrogate)
        if isinstance(surrogate, list):
            each = surrogate
        else:  # values and indices: the values keep their gradient
            each = [None if m.is_floating_point() and m.requires_grad else surrogate for m in made]
        items = [self.joined(m, s) for m, s in zip(made, each, strict=True)]
        return made if all(a is b for a, b in zip(items, made, strict=True)) else type(made)(items)

    def _joined_one(self, made: Tensor, surrogate: Tensor | Shadow) -> Tensor:
        if not made.is_floating_point():
            self.lay(made, surrogate)
            return made
        surrogate = surrogate.value if isinstance(surrogate, Shadow) else surrogate
        if surrogate.numel() != made.numel():
            return made
        if self._relaxed:
            return surrogate.reshape(made.shape).to(made.dtype)
        return SurrogateGradient.apply(made, surrogate)
