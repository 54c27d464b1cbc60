"""For a network that runs and that autograd refuses, because it changes in place what the way back needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

# Operations that return several views of one tensor, and along which dimension if none is given. Autograd lets nobody
# write into these, and does so into one view at a time.
_VIEWS = {"unbind": 0, "__iter__": 0, "chunk": 0, "split": 0, "split_with_sizes": 0, "tensor_split": 0}
_VIEWS |= {"hsplit": 1, "vsplit": 0, "dsplit": 2}
_SINGLE = frozenset(("unbind", "__iter__"))  # the others leave the dimension where it is


@contextmanager
def undisturbed() -> Iterator[None]:
    """Within the block autograd keeps copies of what it saves, and of several views each is taken by itself.

    Values stay what they are, bit for bit. **Cost**: the memory of one copy more of what a graph keeps.
    """
    if not torch.is_grad_enabled():
        yield
        return
    with saved_tensors_hooks(torch.clone, _as_it_is), _OneByOne():
        yield


def _as_it_is(kept: Tensor) -> Tensor:
    return kept


class _OneByOne(TorchFunctionMode):
    """Takes each view that an operation returns by an operation of its own.

    What was made in inference mode is copied, and a leaf, such as a weight, is written into as without gradient.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        args, given = tree_map_only(Tensor, _saveable, (args, kwargs or {}))
        with torch.no_grad() if _writes_into_a_leaf(name, args) else nullcontext():
            found = func(*args, **given)
        if name not in _VIEWS:
            return found
        whole = args[0] if args else given.get("input", given.get("self"))
        if not isinstance(whole, Tensor) or not whole.requires_grad:
            return found
        views = tuple(found)
        last = len(args) > 1 and args[-1] if name in _SINGLE else len(args) > 2 and args[2]
        dim = given.get("dim", _dimension(name, whole) if last is False else last)
        if name in _SINGLE:
            return _handed(name, (whole.select(dim, n) for n in range(len(views))))
        starts = [0]
        for view in views:
            starts.append(starts[-1] + view.shape[dim])
        return _handed(
            name, (whole.narrow(dim, a, v.shape[dim]) for a, v in zip(starts, views, strict=False))
        )


def _saveable(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.is_inference() else tensor


def _writes_into_a_leaf(name: str, args: tuple[Any, ...]) -> bool:
    into = args[0] if args and (name == "__setitem__" or (name[-1:] == "_" and name[-2:] != "__")) else None
    return isinstance(into, Tensor) and into.is_leaf and into.requires_grad


def _dimension(name: str, whole: Tensor) -> int:
    return 0 if name == "hsplit" and whole.ndim == 1 else _VIEWS[name]


def _handed(name: str, views: Iterator[Tensor]) -> Any:
    return iter(tuple(views)) if name == "__iter__" else tuple(views)
